"""The address that `nox -s release -- ADDRESS` writes into what is uploaded: each link of it leads somewhere."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

from tests.acceptance.conftest import ROOT
from tests.addresses import public, urls, with_urls, write

ADDRESS = "https://git.example.com/owner/i3tasks"


def test_a_release_has_the_links_that_an_index_shows_and_an_absolute_readme(tmp_path: Path) -> None:
    for name in ("pyproject.toml", "README.md"):
        (tmp_path / name).write_bytes((ROOT / name).read_bytes())
    write(tmp_path, ADDRESS, "1.2.3")

    before, after = (tomllib.loads((folder / "pyproject.toml").read_text("utf-8")) for folder in (ROOT, tmp_path))
    links = after["project"].pop("urls")
    assert after == before, "nothing else changes"
    assert {"Repository", "Documentation", "Changelog"} <= links.keys()
    readme = (tmp_path / "README.md").read_text("utf-8")
    linked = re.findall(r"\]\(([^)]+)\)", readme)
    assert len(linked) > 20
    for link in [*linked, *links.values()]:
        found = re.fullmatch(rf"{ADDRESS}(?:/(?:blob|raw)/v1\.2\.3/([^#]+)(?:#.*)?|/issues)?", link)
        assert found is not None, link
        assert found[1] is None or (ROOT / found[1]).exists(), link
    assert "![The board" in readme
    assert f"]({ADDRESS}/raw/v1.2.3/docs/board/overview-light.png)" in readme


def test_the_address_of_the_built_pages_can_be_given() -> None:
    assert urls(ADDRESS, "1.2.3", "https://docs.example.com")["Documentation"] == "https://docs.example.com"


def test_links_of_the_projects_own_are_not_overwritten() -> None:
    with pytest.raises(ValueError, match="already"):
        with_urls('[project]\nname = "x"\n[project.urls]\nRepository = "y"\n', {})


@pytest.mark.parametrize("text", ["http://git.example.com/o/r", "git@example.com:o/r", "https://localhost/o/r", "/o/r"])
def test_an_address_that_is_not_public_is_refused(text: str) -> None:
    with pytest.raises(ValueError):
        public(text)
