"""The project of a reader of the documentation: what the samples take for granted. See tests/acceptance."""
