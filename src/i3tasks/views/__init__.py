"""The HTTP endpoints: `push` and `beat` for Google Cloud, `monitoring` for probes. `guards` says who may call them."""
