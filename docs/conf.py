"""Sphinx builds the documentation: `nox -s docs`, or `sphinx-build -W -b html docs build/docs`."""

import re
from importlib.metadata import version as version_of
from pathlib import Path
from typing import Any

import django
from django.conf import settings

if not settings.configured:
    settings.configure(
        INSTALLED_APPS=["i3tasks"],
        DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}},
        USE_TZ=True,
    )
    django.setup()

project = "i3tasks"
author = "i3tasks contributors"
version = release = version_of("i3tasks")

extensions = ["myst_parser", "sphinx.ext.autodoc"]
html_theme = "furo"
html_title = f"i3tasks {version}"
default_role = "code"
add_module_names = False
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_preserve_defaults = True
autodoc_inherit_docstrings = False
myst_heading_anchors = 4

# For `nox -s links`: examples of addresses, and a machine of the reader's, are no links.
linkcheck_ignore = [
    r"https?://127\.0\.0\.1\b.*",
    r"https://shop\.example\.com\b.*",
    r"https://www\.googleapis\.com/oauth2/.*",
]
linkcheck_timeout = 30
linkcheck_retries = 3
linkcheck_allowed_redirects = {r"https://cloud\.google\.com/.*": r"https://docs\.cloud\.google\.com/.*"}

SOURCE = Path(__file__).resolve().parent
_COLUMNS = re.compile(r"^(\w[\w, ]*?) {2,}(\S.*)$")


def columns_as_definitions(lines: list[str]) -> list[str]:
    """Docstrings describe options in two columns, `name   what it means`: make each a definition."""
    made: list[str] = []
    is_within = False
    for line in lines:
        if found := _COLUMNS.match(line):
            names = ", ".join(f"``{name}``" for name in found[1].split(", "))
            made += [names, f"    {found[2]}"]
            is_within = True
        elif is_within and line.startswith(" "):
            made.append(f"    {line.strip()}")
        else:
            made.append(line)
            is_within = False
    return made


def prepare_docstring(app: object, what: str, name: str, thing: object, options: object, lines: list[str]) -> None:
    lines[:] = columns_as_definitions(lines)


def link_to_repository(app: object, docname: str, source: list[str]) -> None:
    """Links from a page to files beside `docs/` work in the repository; the built pages name the file."""
    here = (SOURCE / f"{docname}.md").parent

    def plain(found: re.Match[str]) -> str:
        target = (here / found[2].split("#")[0]).resolve()
        is_outside = target.exists() and not target.is_relative_to(SOURCE)
        return f"{found[1]} (`{target.relative_to(SOURCE.parent).as_posix()}`)" if is_outside else found[0]

    source[0] = re.sub(r"\[([^\]]+)\]\((\.\.?/[^)]+)\)", plain, source[0])


def setup(app: Any) -> None:
    app.connect("autodoc-process-docstring", prepare_docstring)
    app.connect("source-read", link_to_repository)
