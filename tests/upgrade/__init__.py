"""Upgrades from the versions of django-i3tasks that are on the package index: `nox -s upgrade`. Needs the network."""
