"""Small edits of Python source that leave everything else of it as it is."""

from __future__ import annotations

import ast
from collections.abc import Sequence


class Refused(Exception):
    """The source can't be edited safely. The text says why."""


def add_to_list(source: str, name: str, entries: Sequence[str]) -> str:
    """Add entries at the end of the list that is assigned to `name`; where there is none, add to it at the end."""
    found = [value for statement in _parsed(source).body if (value := _assigned(statement, name)) is not None]
    if not found or not isinstance(found[-1], ast.List):
        return source.rstrip("\n") + f"\n\n{name} += [{', '.join(entries)}]\n"
    return _extended(source, found[-1], entries)


def import_from(source: str, module: str, names: Sequence[str]) -> str:
    """Import these names: in the import from this module that is there, or in a line of its own below the others."""
    body = _parsed(source).body
    imports = [item for item in body if isinstance(item, (ast.Import, ast.ImportFrom))]
    lines = source.splitlines(keepends=True)
    for item in imports:
        if isinstance(item, ast.ImportFrom) and item.module == module and item.lineno == item.end_lineno:
            present = [alias.name for alias in item.names if alias.asname is None]
            missing = [name for name in names if name not in present]
            if missing and len(present) == len(item.names):
                lines[item.lineno - 1] = f"from {module} import {', '.join(sorted({*present, *names}))}\n"
            elif missing:
                continue
            return "".join(lines)
    after = (imports[-1].end_lineno or 0) if imports else _end_of_docstring(body)
    line = f"from {module} import {', '.join(sorted(names))}\n"
    return "".join([*lines[:after], *([] if imports else ["\n"]), line, *lines[after:]])


def _parsed(source: str) -> ast.Module:
    try:
        return ast.parse(source)
    except SyntaxError as error:
        raise Refused(f"A file has a syntax error: {error}.") from error


def _assigned(statement: ast.stmt, name: str) -> ast.expr | None:
    """The value that the statement gives to `name`, if it does."""
    if isinstance(statement, (ast.AnnAssign, ast.AugAssign)):
        targets: list[ast.expr] = [statement.target]
    elif isinstance(statement, ast.Assign):
        targets = statement.targets
    else:
        return None
    return statement.value if any(isinstance(target, ast.Name) and target.id == name for target in targets) else None


def _extended(source: str, found: ast.List, entries: Sequence[str]) -> str:
    lines = source.splitlines(keepends=True)
    last_line, last_column = (found.end_lineno or 1) - 1, (found.end_col_offset or 1) - 1  # of the bracket
    closing = lines[last_line].encode()
    if found.elts and found.elts[-1].end_lineno == found.end_lineno:  # all in one line
        head, tail = closing[:last_column].decode().rstrip().rstrip(","), closing[last_column:].decode()
        lines[last_line] = f"{head}, {', '.join(entries)}{tail}"
    elif not found.elts:
        head, tail = closing[:last_column].decode(), closing[last_column:].decode()
        lines[last_line] = f"{head}{', '.join(entries)}{tail}"
    else:
        last = found.elts[-1]
        end = (last.end_lineno or 1) - 1
        encoded = lines[end].encode()
        rest = encoded[last.end_col_offset :].decode()
        if not rest.lstrip().startswith(","):
            lines[end] = f"{encoded[: last.end_col_offset].decode()},{rest}"
        indent = " " * last.col_offset
        lines[last_line:last_line] = [f"{indent}{entry},\n" for entry in entries]
    return "".join(lines)


def _end_of_docstring(body: list[ast.stmt]) -> int:
    first = body[0] if body else None
    is_text = (
        isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant) and isinstance(first.value.value, str)
    )
    return (first.end_lineno or 0) if first is not None and is_text else 0
