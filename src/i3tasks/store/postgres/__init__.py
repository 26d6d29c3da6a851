"""The hot statements as SQL with arrays, for PostgreSQL. The ORM does the rest, in the same transaction.

Each statement carries out the plain requests of a batch: claims of tries that may run now, settlements of successes
that nothing follows yet, heartbeats, confirmations, new executions. It has one text for every size of a batch, and
takes its values as arrays: Django would compile an `IN` list of each length anew, psycopg split it, and make a model
instance of each row. The rows are locked in the order of `locks`, those that are left to the ORM among them.

Nothing is prepared by us: PostgreSQL plans each of these in 0.3 ms, and a prepared statement does not survive a pooler
such as PgBouncer. They are run by Django's own cursor, so that what a project has set there counts here, too.
"""
