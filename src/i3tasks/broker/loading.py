"""Importing Google's library late, in whatever thread needs it, without leaving half a module to a forked child."""

from __future__ import annotations

from ..forking import ForkBarrier

importing = ForkBarrier().held
"""Put around whatever imports Google's library, or makes it import more of itself. Forks wait for its end."""
