"""The development runner, `i3tasks dev`: web process, worker, beat and emulator under one command."""
