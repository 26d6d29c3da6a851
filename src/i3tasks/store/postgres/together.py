"""Several questions in one round trip, which is a transaction by itself."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from django.db import connections

from ..database import BY_INDEX, MANY, alias
from .statements import Question


def can_ask_together() -> bool:
    """Whether one message to the database can hold several statements, and nothing around it is a transaction.

    It can with psycopg 3, unless the project binds values on the server's side.
    """
    connection = connections[alias()]
    if connection.vendor != "postgresql":
        return False
    from django.db.backends.postgresql.psycopg_any import is_psycopg3  # here, because not every process has a driver

    features: Any = connection.features
    return is_psycopg3 and not features.uses_server_side_binding and connection.get_autocommit()


def ask_together(questions: Sequence[Question[Any]], count: int) -> list[Any]:
    """The answers to the questions, which are about so many rows: all of them, or an error, and nothing is changed."""
    with connections[alias()].cursor() as cursor:
        statements = [cursor.mogrify(question.statement, question.values) for question in questions]
        cursor.execute(";".join([*([BY_INDEX] if count >= MANY else []), *statements]))
        if count >= MANY:
            cursor.nextset()
        answers = []
        for question in questions:
            answers.append(question.answer(cursor.fetchall()))
            cursor.nextset()
        return answers
