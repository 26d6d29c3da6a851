"""Integrations with other packages. Each package is imported only if its integration is used."""
