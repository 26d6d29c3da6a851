"""A world without threads, sockets or clocks, in which the real engine runs on the real store. See test_simulation."""
