"""Mentions of django-i3tasks in the project's files, and the texts to put in their place."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

from ..file_changes import FileChange, SourceText, shown_path
from ..file_watching import PASSED_BY
from .findings import Finding

OLD, NEW = "django_i3tasks", "i3tasks"
KEPT = {"admin", "exceptions", "maintenance", "migrations", "models", "tasks", "types", "urls", "utils"}
"""Modules that are here under the same name, with what was documented of them."""
REQUIREMENTS = ("pyproject.toml", "setup.cfg", "setup.py", "Pipfile", "requirements*.txt", "requirements/*.txt")

_FOUND = re.compile(
    rf"""(?P<url>\w+://[^\s"'<>()]*)
    | \bfrom[ \t]+{OLD}\.chain[ \t]+import[ \t]+(?P<handle>ChainHandle(?:[ \t]+as[ \t]+\w+)?)(?=[ \t\r]*(?:[#;].*)?$)
    | \bfrom[ \t]+{OLD}[ \t]+import[ \t]*(?P<names>\([^)]*\)|(?:\\\r?\n|[^\n#;])*)
    | \b(?P<config>{OLD}\.apps\.\w+)
    | \b{OLD}\b(?:\.(?P<module>\w+))?""",
    re.VERBOSE | re.MULTILINE,
)
"""A URL, which stays as it is; an import of what has another place; imported modules; or the package's name."""
_DISTRIBUTION = re.compile(r"\bdjango[-_]i3tasks\b", re.IGNORECASE)


def python_files(folder: Path) -> Iterator[Path]:
    """The project's own Python files: no environments, caches, hidden folders or installed packages."""
    for place, folders, names in os.walk(folder):
        folders[:] = sorted(
            name
            for name in folders
            if not name.startswith(".") and name not in PASSED_BY and not Path(place, name, "pyvenv.cfg").exists()
        )
        for path in (Path(place, name) for name in sorted(names) if name.endswith(".py")):
            if not path.is_symlink():  # what it links to is found by its own name, or isn't the project's
                yield path


def renamed(source: str) -> str:
    """The source with every name that has a counterpart here; the others stay."""
    return _FOUND.sub(_new, source)


def changes(folder: Path) -> list[FileChange]:
    """The files that `renamed` changes."""
    found = []
    for path in python_files(folder):
        source = _read(path)
        if isinstance(source, SourceText) and (after := renamed(source.text)) != source.text:
            found.append(FileChange(path, source, after))
    return found


def findings_of_sources(folder: Path) -> list[Finding]:
    """The lines that name django-i3tasks, and the files that may do so and can't be read."""
    found = []
    for path in python_files(folder):
        source = _read(path)
        found += _old_names(path, source.text) if isinstance(source, SourceText) else [source]
    for pattern in REQUIREMENTS:
        for path in sorted(folder.glob(pattern)):
            source = _read(path)
            found += _requirements(path, source.text) if isinstance(source, SourceText) else [source]
    return found


def _old_names(path: Path, source: str) -> list[Finding]:
    """One finding for a line: what can't be renamed, if there is such."""
    found: dict[int, Finding] = {}
    for match in _FOUND.finditer(source):
        number = source.count("\n", 0, match.start()) + 1
        if match["url"] is None and (number not in found or found[number].can_be_fixed):
            found[number] = _old_name(f"{shown_path(path)}:{number}", match)
    return [*found.values()]


def _old_name(where: str, found: re.Match[str]) -> Finding:
    gone = _gone(found)
    if not gone:
        return Finding(where, f"{OLD} is called {NEW} now.", "`--fix` renames it.", can_be_fixed=True)
    names = " and ".join(f"{OLD}.{name}" for name in gone)
    have = "has" if len(gone) == 1 else "have"
    return Finding(
        where, f"{names} {have} no counterpart in i3tasks.", "See docs/upgrading.md for what to use instead."
    )


def _requirements(path: Path, text: str) -> list[Finding]:
    return [
        Finding(f"{shown_path(path)}:{number}", "It requires django-i3tasks.", "Require i3tasks instead.")
        for number, line in enumerate(text.split("\n"), start=1)
        if _DISTRIBUTION.search(line) and not line.lstrip().startswith("#")
    ]


def _new(found: re.Match[str]) -> str:
    if found["url"] is not None or _gone(found):
        return found[0]
    if found["handle"] is not None:
        return f"from {NEW} import {found['handle']}"
    return NEW if found["config"] is not None else found[0].replace(OLD, NEW, 1)


def _gone(found: re.Match[str]) -> list[str]:
    """The names in it that i3tasks does not have."""
    if found["names"] is not None:
        text = re.sub(r"#.*|\\\r?\n|[()]", " ", found["names"])
        words = [part.split()[0].strip("\"'") for part in text.split(",") if part.strip()]
    else:
        words = [found["module"]] if found["module"] is not None else []
    return [word for word in words if word not in KEPT]


def _read(path: Path) -> SourceText | Finding:
    try:
        return SourceText.of(path)
    except (OSError, SyntaxError, UnicodeDecodeError) as error:
        cure = "Mend it, or look by hand for what it says of django-i3tasks."
        return Finding(shown_path(path), f"It can't be read: {error}.", cure)
