"""The project that the deployment examples deploy."""
