"""Gives a release its public address: `python -m tests.addresses FOLDER https://github.com/OWNER/i3tasks`.

Copies the last commit into the folder, and writes there what the repository can't know of itself: `[project.urls]`,
which package indexes show, and absolute links in the README, since an index can't follow relative ones.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
RELATIVE = re.compile(r"(!?)\[([^\]]*)\]\((?!https?:|#)([^)\s]+)\)")


def urls(address: str, version: str, documentation: str | None = None) -> dict[str, str]:
    """The links of the package, to the release's own tag. Without an address of the built pages, to their sources."""
    at = f"{address}/blob/v{version}"
    return {
        "Repository": address,
        "Documentation": documentation or f"{at}/docs/index.md",
        "Changelog": f"{at}/CHANGELOG.md",
        "Issues": f"{address}/issues",
    }


def absolute(text: str, address: str, version: str) -> str:
    """The text with the repository's own links and pictures at that address."""

    def whole(found: re.Match[str]) -> str:
        picture, label, path = found.groups()
        return f"{picture}[{label}]({address}/{'raw' if picture else 'blob'}/v{version}/{path})"

    return RELATIVE.sub(whole, text)


def with_urls(project: str, links: dict[str, str]) -> str:
    """pyproject.toml with these links. Raises ValueError where it has links of its own."""
    if "urls" in tomllib.loads(project)["project"]:
        raise ValueError("pyproject.toml has [project.urls] already: correct them there, and give no address.")
    table = "".join(f'{name} = "{link}"\n' for name, link in links.items())
    return project.replace("\n[project.scripts]\n", f"\n[project.urls]\n{table}\n[project.scripts]\n", 1)


def write(folder: Path, address: str, version: str, documentation: str | None = None) -> None:
    """Change the two files of the copy in this folder."""
    project, readme = folder / "pyproject.toml", folder / "README.md"
    links = urls(address, version, documentation)
    project.write_text(with_urls(project.read_text(encoding="utf-8"), links), encoding="utf-8")
    readme.write_text(absolute(readme.read_text(encoding="utf-8"), address, version), encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("address", type=public, help="where the repository can be read by anyone")
    parser.add_argument("--documentation", type=public, help="where the built pages are, if they are somewhere")
    options = parser.parse_args()
    options.folder.mkdir(parents=True)
    archive = subprocess.run(["git", "archive", "HEAD"], cwd=ROOT, stdout=subprocess.PIPE, check=True)
    subprocess.run(["tar", "-x"], cwd=options.folder, input=archive.stdout, check=True)
    found = re.search(r'^__version__ = "(.+)"$', (options.folder / "src/i3tasks/__init__.py").read_text(), re.MULTILINE)
    assert found is not None
    write(options.folder, options.address, found[1], options.documentation)


def public(text: str) -> str:
    if not re.fullmatch(r"https://[\w.-]+\.[a-z]+(/[\w.~-]+)*/?", text):
        raise ValueError
    return text.rstrip("/")


if __name__ == "__main__":
    main()
