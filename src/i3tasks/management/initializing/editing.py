"""Small edits of Python source that leave everything else of it as it is."""

from __future__ import annotations

import ast
import io
import tokenize
from collections.abc import Sequence
from itertools import takewhile

_IN_BETWEEN = {tokenize.NL, tokenize.COMMENT}
"""Tokens between the last entry of a list and its bracket that are no part of an entry."""


def add_to_list(source: str, name: str, entries: Sequence[str]) -> str:
    """Add entries at the end of the list or tuple that is assigned to `name`; where none is written out, at the end."""
    found = [value for statement in ast.parse(source).body if (value := _assigned(statement, name)) is not None]
    if not found or not _is_written_out(found[-1], source):
        return source.rstrip("\n") + f"\n\n{name} = [*{name}, {', '.join(entries)}]\n"
    return _extended(source, found[-1], entries)


def import_from(source: str, module: str, names: Sequence[str]) -> str:
    """Import these names: in the import from this module that is there, or in a line of its own below the others."""
    body = ast.parse(source).body
    lines = _lines(source)
    for item in body:
        if not isinstance(item, ast.ImportFrom) or item.module != module or item.level:
            continue
        present = [alias.name for alias in item.names if alias.asname is None]
        if set(names) <= set(present):
            return source
        if len(present) == len(item.names) and "*" not in present and item.lineno == item.end_lineno:
            line = lines[item.lineno - 1].encode()
            statement = f"from {module} import {', '.join(sorted({*present, *names}))}"
            lines[item.lineno - 1] = _replaced(line, item.col_offset, item.end_col_offset, statement)
            return "".join(lines)
    start = int(_is_docstring(body))
    imports = list(takewhile(lambda item: isinstance(item, (ast.Import, ast.ImportFrom)), body[start:]))
    above = [*body[:start], *imports]
    after = (above[-1].end_lineno or 0) if above else 0
    own = f"from {module} import {', '.join(sorted(names))}\n"
    return "".join([*lines[:after], *([] if imports else ["\n"]), own, *lines[after:]])


def _assigned(statement: ast.stmt, name: str) -> ast.expr | None:
    """The value that the statement gives to `name`, if it does."""
    if isinstance(statement, (ast.AnnAssign, ast.AugAssign)):
        targets: list[ast.expr] = [statement.target]
    elif isinstance(statement, ast.Assign):
        targets = statement.targets
    else:
        return None
    return statement.value if any(isinstance(target, ast.Name) and target.id == name for target in targets) else None


def _is_written_out(value: ast.expr, source: str) -> bool:
    """Whether it is a list, or a tuple, in brackets."""
    if isinstance(value, ast.Tuple):
        return (ast.get_source_segment(source, value) or "").startswith("(")
    return isinstance(value, ast.List)


def _extended(source: str, found: ast.expr, entries: Sequence[str]) -> str:
    lines = _lines(source)
    row, column = found.end_lineno or 1, (found.end_col_offset or 1) - 1  # of the closing bracket
    column = len(lines[row - 1].encode()[:column].decode())
    tokens = tokenize.generate_tokens(io.StringIO(source).readline)
    within = [token for token in tokens if token.start < (row, column) and token.type not in _IN_BETWEEN]
    last = within[-1]  # of the last entry, or its comma, or the opening bracket
    is_empty = not getattr(found, "elts", ())
    if not lines[row - 1][:column].strip():  # the bracket stands in a line of its own
        indent = lines[row - 1][:column] + "    " if is_empty else _indent(lines, found)
        lines[row - 1 : row - 1] = [f"{indent}{entry},\n" for entry in entries]
        if not is_empty and last.string != ",":
            lines[last.end[0] - 1] = _inserted(lines[last.end[0] - 1], last.end[1], ",")
        return "".join(lines)
    text = ", ".join(entries)
    if is_empty:
        text += "," if isinstance(found, ast.Tuple) and len(entries) == 1 else ""
    else:
        text = f" {text}" if last.string == "," else f", {text}"
    lines[last.end[0] - 1] = _inserted(lines[last.end[0] - 1], last.end[1], text)
    return "".join(lines)


def _lines(source: str) -> list[str]:
    """As Python counts them; `splitlines` would end one at a form feed, too."""
    return list(io.StringIO(source))


def _indent(lines: Sequence[str], found: ast.expr) -> str:
    """That of the line in which the last entry begins."""
    entries: list[ast.expr] = getattr(found, "elts", [])
    line = lines[entries[-1].lineno - 1]
    begins = entries[-1].lineno > found.lineno
    return line[: len(line) - len(line.lstrip())] if begins else " " * entries[-1].col_offset


def _inserted(line: str, column: int, text: str) -> str:
    return line[:column] + text + line[column:]


def _replaced(line: bytes, start: int, end: int | None, text: str) -> str:
    """With the text in the place of these bytes, in which syntax trees count."""
    return line[:start].decode() + text + line[end:].decode()


def _is_docstring(body: Sequence[ast.stmt]) -> bool:
    first = body[0] if body else None
    return isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant) and isinstance(first.value.value, str)
