"""Finds the session state that bodies leave on their connections: SET, advisory locks, temporary tables and the like.

Statements that set it openly are known by their text. What functions of the database may have set inside, called by a
statement or a trigger, is asked of PostgreSQL: not after each statement, but where a connection goes from one body to
another, and only if the database has functions that could have done so.
"""

from __future__ import annotations

import re
import threading
import time
import weakref
from dataclasses import dataclass
from typing import Any

from django.db import connections
from django.db.backends.signals import connection_created

FUNCTIONS_SECONDS = 60.0
"""How long a process relies on what it has read of a database's functions."""

_COMMENTS = r"(?:\s|;|\(|--[^\n]*\n|/\*.*?\*/)*"
_ONLY_READS = "foreign_key_check|foreign_key_list|index_x?info|index_list|integrity_check|quick_check|table_\\w+"
_SETS_STATE = re.compile(
    rf"(?:^|;){_COMMENTS}(SET\s+(?!LOCAL\b|TRANSACTION\b|CONSTRAINTS\b)|RESET|LISTEN|PREPARE|DECLARE|LOAD"
    rf"|PRAGMA\s+(?!(?:\w+\.)?(?:{_ONLY_READS})\b)[\w.]+\s*[=(]|ATTACH"
    r"|CREATE\s+(OR\s+REPLACE\s+)?((LOCAL|GLOBAL)\s+)?TEMP|CREATE\b[^;]*\bpg_temp\b)"
    r"|\bINTO\s+(LOCAL\s+)?TEMP|\b(pg_(try_)?advisory_lock(_shared)?|set_config)\s*\(",
    re.IGNORECASE | re.DOTALL,
)
_RUNS_CODE = re.compile(rf"(?:^|;){_COMMENTS}(DO|CALL|EXECUTE)\b", re.IGNORECASE | re.DOTALL)
_SETS_ANY = re.compile(r"\bset_config\b|\bSET\s+(SESSION\s+)?\w+\.\w+|\bEXECUTE\b", re.IGNORECASE)
_ATTRIBUTES = ("autocommit", "isolation_level", "read_only", "deferrable", "row_factory", "text_factory")
"""The attributes of the driver's connection (psycopg or sqlite3) that a body can set."""
_START = re.compile(rf"{_COMMENTS}SET\b", re.IGNORECASE | re.DOTALL)  # SET TRANSACTION: no query may come before it

_FUNCTIONS = r"""
WITH functions AS (
    SELECT proname, CASE WHEN prosrc = '' THEN pg_get_functiondef(pg_proc.oid) ELSE prosrc END AS source
    FROM pg_proc JOIN pg_language ON pg_language.oid = prolang
    WHERE provolatile = 'v' AND prokind IN ('f', 'p') AND lanname NOT IN ('c', 'internal')
    AND pronamespace NOT IN ('pg_catalog'::regnamespace, 'information_schema'::regnamespace)
)
SELECT EXISTS(SELECT FROM functions),
ARRAY(SELECT DISTINCT coalesce(found[1], found[2]) FROM functions, regexp_matches(source,
    'set_config\s*\(\s*''([\w.]+)''|\mset\s+(?:session\s+)?(\w+\.\w+)\s*(?:=|to\M)', 'gi') found),
ARRAY(SELECT DISTINCT proname::text FROM functions WHERE source ~* 'set_config\s*\(\s*[^''\s]')
"""
_SNAPSHOT = """
SELECT concat_ws(',', current_setting('role'), session_user,
    (SELECT string_agg(name || '=' || setting, ',' ORDER BY name) FROM pg_settings WHERE source = 'session')),
ARRAY(SELECT coalesce(current_setting(name, true), '') FROM unnest(%s::text[]) WITH ORDINALITY AS n(name, place)
    ORDER BY place)
"""
_HOLDS = """
SELECT EXISTS(SELECT FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid())
OR EXISTS(SELECT pg_listening_channels())
OR EXISTS(SELECT FROM pg_cursors WHERE is_holdable)
OR EXISTS(SELECT FROM pg_prepared_statements WHERE from_sql)
OR CASE WHEN pg_my_temp_schema() = 0 THEN false
    ELSE EXISTS(SELECT FROM pg_class WHERE relnamespace = pg_my_temp_schema()) END
"""


@dataclass(frozen=True, slots=True)
class _Functions:
    """The possible effects on a session of a database's functions, but for its own and those in C."""

    are_there: bool
    settings: frozenset[str]  # of the project, such as app.tenant: PostgreSQL does not list them
    set_any_setting: frozenset[str]  # functions that set one whose name is no literal
    read_at: float


_functions: dict[str, _Functions] = {}
_with_state: weakref.WeakSet[Any] = weakref.WeakSet()
_in_doubt: weakref.WeakSet[Any] = weakref.WeakSet()
_before: weakref.WeakKeyDictionary[Any, dict[str, str]] = weakref.WeakKeyDictionary()  # by the driver's connection
_attributes: weakref.WeakKeyDictionary[Any, dict[str, Any]] = weakref.WeakKeyDictionary()  # as Django has set them
_thread = threading.local()


def watch_this_thread() -> None:
    """Record from now on when a body sets session state on a connection of this thread."""
    _thread.is_watched = True


def is_watched() -> bool:
    """Whether this thread is one for bodies."""
    return getattr(_thread, "is_watched", False)


def is_known(connection: Any) -> bool:
    """Whether the connection is known to have session state. `settle_doubts` finds what is not known yet."""
    made = _attributes.get(connection)
    is_changed = made is not None and connection.connection and _attributes_of(connection.connection) != made
    return connection in _with_state or bool(is_changed)


def restore(connection: Any) -> None:
    """Set the attributes of the driver's connection back, as a pool would pass it on. It must be in no transaction."""
    for name, value in _attributes.get(connection, {}).items():
        setattr(connection.connection, name, value)


def is_any_in_doubt() -> bool:
    """Whether a connection of this thread may have session state that a question to the database would find."""
    return any(connection in _in_doubt for connection in connections.all(initialized_only=True))


def settle_doubts(*, has_ended: bool) -> None:
    """Ask the database about those connections of this thread that may have session state.

    `has_ended`: so has the body, and connections that are not kept for the next one need no question.
    """
    for connection in connections.all(initialized_only=True):
        if connection in _in_doubt and not connection.in_atomic_block and not (has_ended and _is_ending(connection)):
            _in_doubt.discard(connection)
            if _has_changed(connection):
                _with_state.add(connection)


def forget(connection: Any) -> None:
    """Note that the connection is closed."""
    _with_state.discard(connection)
    _in_doubt.discard(connection)
    _attributes.pop(connection, None)


def _watch(connection: Any, **_: Any) -> None:
    if is_watched():
        _attributes[connection] = _attributes_of(connection.connection)
        if _note not in connection.execute_wrappers:
            connection.execute_wrappers.append(_note)


def _attributes_of(driver: Any) -> dict[str, Any]:
    return {name: getattr(driver, name) for name in _ATTRIBUTES if hasattr(driver, name)}


def _note(execute: Any, sql: Any, params: Any, many: bool, context: dict[str, Any]) -> Any:
    """Record before a statement what it may do to the session. An execute wrapper of Django's."""
    connection = context["connection"]
    cursor = getattr(context["cursor"], "cursor", None)
    text = sql if isinstance(sql, str) else _text(sql, connection)
    if getattr(cursor, "name", None) or _SETS_STATE.search(text):
        _with_state.add(connection)
    elif connection.vendor == "postgresql" and not _START.match(text):
        try:
            _consider(connection, text)
        except Exception:  # of the driver, such as a time-out: the connection is no other body's
            _with_state.add(connection)
    return execute(sql, params, many, context)


def _text(sql: Any, connection: Any) -> str:
    """The text of a statement that was composed with psycopg's `sql`."""
    try:
        return str(sql.as_string(connection.connection))
    except Exception:  # executing it will fail
        return str(sql)


def _consider(connection: Any, text: str) -> None:
    """Note if this statement, or a function that it sets off, may set session state."""
    if connection.connection.info.transaction_status not in (0, 2):  # libpq's: idle, in a transaction
        return
    functions, runs_code = _functions_of(connection), _RUNS_CODE.search(text)
    if any(name in text for name in functions.set_any_setting) or (runs_code and _SETS_ANY.search(text)):
        _with_state.add(connection)
    elif connection not in _in_doubt and (functions.are_there or runs_code):
        if connection.connection not in _before:
            _before[connection.connection] = _snapshot(connection)
        _in_doubt.add(connection)


def _is_ending(connection: Any) -> bool:
    """Whether CONN_MAX_AGE has passed. A pool would keep the connection, with its state."""
    is_pooled = connection.settings_dict.get("OPTIONS", {}).get("pool")
    return not is_pooled and connection.close_at is not None and time.monotonic() >= connection.close_at


def _has_changed(connection: Any) -> bool:
    try:
        [[holds]] = _ask(connection, _HOLDS)
        before = _before[connection.connection]
        return holds or any(before.get(name, "") != value for name, value in _snapshot(connection).items())
    except Exception:  # it is of no use to other bodies
        return True


def _snapshot(connection: Any) -> dict[str, str]:
    """The settings of the session: those of PostgreSQL together, as "", and each of the project's."""
    names = sorted(_functions_of(connection).settings)
    [[settings, values]] = _ask(connection, _SNAPSHOT, [names])
    return {"": settings, **dict(zip(names, values, strict=True))}


def _functions_of(connection: Any) -> _Functions:
    database = connection.alias
    known = _functions.get(database)
    if known is None or time.monotonic() - known.read_at > FUNCTIONS_SECONDS:
        [[are_there, settings, any_setting]] = _ask(connection, _FUNCTIONS)
        known = _Functions(are_there, frozenset(settings), frozenset(any_setting), time.monotonic())
        _functions[database] = known
    return known


def _ask(connection: Any, sql: str, params: list[Any] | None = None) -> Any:
    with connection.connection.cursor() as cursor:  # not Django's, which would log and count it
        cursor.execute(sql, params)
        return cursor.fetchall()


connection_created.connect(_watch)
