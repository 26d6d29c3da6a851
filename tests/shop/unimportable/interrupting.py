"""Can not be imported."""

raise KeyboardInterrupt("at import")
