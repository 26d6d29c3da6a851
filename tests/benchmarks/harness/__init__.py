"""What measures: services, environments, contestants' interface, workloads, and the report."""
