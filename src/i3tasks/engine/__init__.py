"""Runs tries: the executor, which workers, push views and inline calls share; the pools of bodies; the worker."""
