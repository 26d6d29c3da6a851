"""What the admin shows."""

from . import admin_schedules as admin_schedules
