"""Statistics that notice a backlog: by the default, PostgreSQL looks again once a tenth of all rows has changed."""

from django.db import migrations

from i3tasks.migrations import _operations

TABLES = ("i3tasks_taskexecution", "i3tasks_taskexecutiontry")
OPTIONS = "autovacuum_analyze_scale_factor = 0, autovacuum_analyze_threshold = 20000"
NAMES = "autovacuum_analyze_scale_factor, autovacuum_analyze_threshold"


def analyze_early(apps, schema_editor):
    """Beside ten million rows, a backlog of a hundred thousand would look like none, and be read as a whole."""
    _each(schema_editor, f"SET ({OPTIONS})")


def analyze_as_others(apps, schema_editor):
    _each(schema_editor, f"RESET ({NAMES})")


def _each(schema_editor, change):
    if schema_editor.connection.vendor == "postgresql":
        for table in TABLES:
            schema_editor.execute(f"ALTER TABLE {table} {change}")


class Migration(_operations.Migration):
    dependencies = [("i3tasks", "0026_deploy")]

    operations = [migrations.RunPython(analyze_early, analyze_as_others)]
