"""Threads that i3tasks starts itself: for batches and for loops. Also the locks that a fork has to wait for."""
