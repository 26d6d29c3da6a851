"""Running tries: the pool, the executor that a worker, a push view and inline calls share, and the worker."""
