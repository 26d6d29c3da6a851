"""docs/tutorial.md, followed as it is written: its commands, its files, its shells, and what it says one sees."""

from __future__ import annotations

import os
import re
import subprocess
import sysconfig
import urllib.parse
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.cookiejar import CookieJar
from pathlib import Path

import pytest

from tests.acceptance.conftest import ROOT, plain_environ
from tests.support.children import free_port
from tests.support.terminal import InTerminal

PAGE = ROOT / "docs" / "tutorial.md"
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```", re.MULTILINE | re.DOTALL)
FILE = re.compile(r"# (?P<path>[\w/]+\.py)(?P<at_end>, at the end)?\n")
INSTALL = 'python -m pip install "../i3tasks[web]"'
# Runs the file's examples and compares what they print, as the reader does.
SHELL = """
import doctest, sys
sys.exit(doctest.testfile({!r}, module_relative=False, optionflags=doctest.ELLIPSIS).failed)
"""


@dataclass
class Reader:
    """Does what the page says, block by block."""

    folder: Path  # in which the clone is
    dev: InTerminal
    port: int = field(default_factory=free_port)
    environ: dict[str, str] = field(default_factory=plain_environ)
    seen: str = ""

    @property
    def project(self) -> Path:
        return self.folder / "bookshop"

    def follow(self, kind: str, text: str) -> None:
        if kind == "text":
            self.sees(text)
        elif kind == "python" and text.startswith(">>>"):
            self.shell(text)
        elif kind == "python":
            self.write(text)
        elif INSTALL in text:
            self.make_environment(text)
        elif text.startswith("i3tasks dev"):
            self.dev.open([*text.split(), "--address", str(self.port)], self.environ, self.project)
            self.seen = ""
        else:
            assert kind == "sh", f"a block that is not tested: {text}"
            self.run(text)

    def make_environment(self, text: str) -> None:
        """The environment of the first block: under CI as written, elsewhere with our packages instead of pip's."""
        self.environ["PUBSUB_EMULATOR_HOST"] = f"127.0.0.1:{free_port()}"
        own = self.project / ".venv" / "bin"
        if "CI" in os.environ:
            (self.folder / "i3tasks").symlink_to(ROOT)
            self.run(text, self.folder)
        else:
            self.borrow_packages(text, own)
        self.environ["PATH"] = f"{own}{os.pathsep}{self.environ['PATH']}"

    def borrow_packages(self, text: str, own: Path) -> None:
        self.run(text.replace(INSTALL, "").replace("-m venv", "-m venv --without-pip"), self.folder)
        site = self.project / ".venv" / "lib" / f"python{sysconfig.get_python_version()}" / "site-packages"
        (site / "ours.pth").write_text(f"import site; site.addsitedir({sysconfig.get_paths()['purelib']!r})\n")
        for script, module in (("django-admin", "django.core.management"), ("i3tasks", "i3tasks.cli")):
            call = "execute_from_command_line" if script == "django-admin" else "main"
            code = f"#!{own}/python\nimport sys\nfrom {module} import {call} as main\nsys.exit(main())\n"
            (own / script).write_text(code)
            (own / script).chmod(0o755)

    def run(self, commands: str, folder: Path | None = None) -> None:
        shell = ["bash", "-e", "-c", commands]
        done = subprocess.run(
            shell,
            cwd=folder or self.project,
            env=self.environ,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout
        self.seen = done.stdout

    def shell(self, text: str) -> None:
        (self.project / "session.txt").write_text(text, encoding="utf-8")
        command = [self.project / ".venv/bin/python", "manage.py", "shell", "-c", SHELL.format("session.txt")]
        answer = subprocess.run(
            command, cwd=self.project, env=self.environ, capture_output=True, text=True, check=False
        )
        assert answer.returncode == 0, answer.stdout + answer.stderr + self.dev.text()
        self.seen = ""

    def write(self, text: str) -> None:
        named = FILE.match(text)
        assert named, f"which file is this? {text}"
        path = self.project / named["path"]
        assert path.exists(), "startproject, startapp or init has made it"
        before = path.read_text(encoding="utf-8") + "\n" if named["at_end"] else ""
        path.write_text(before + text, encoding="utf-8")
        self.seen = ""

    def sees(self, text: str) -> None:
        """Each line, with `...` for anything: in the last command's output, or in the first terminal."""
        for line in text.splitlines():
            pattern = re.compile(".*".join(re.escape(part) for part in line.split("...")))
            if not pattern.search(self.seen):
                self.dev.until(lambda pattern=pattern: pattern.search(self.dev.text()) is not None)  # type: ignore[misc]


@pytest.fixture
def reader(tmp_path: Path) -> Iterator[Reader]:
    dev = InTerminal(tmp_path)
    yield Reader(tmp_path, dev)
    dev.end()


def test_the_tutorial_leads_to_a_chain_a_schedule_a_test_and_the_board(reader: Reader) -> None:
    page = PAGE.read_text(encoding="utf-8")
    for kind, text in BLOCK.findall(page):
        reader.follow(kind, text)

    [board] = re.findall(r"<http://127\.0\.0\.1:8000(/[^>]+)>", page)
    assert "greeting" in board_of(reader.port, board, "ada", "secret"), "the schedule's next slots"
    reader.dev.type(b"\x03")
    assert reader.dev.wait(60) == 0, reader.dev.text()
    assert reader.dev.survivors() == []


def board_of(port: int, path: str, username: str, password: str) -> str:
    """The page as who logs in there sees it."""
    cookies = CookieJar()
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}), urllib.request.HTTPCookieProcessor(cookies))
    with opener.open(f"http://127.0.0.1:{port}{path}", timeout=60) as answer:
        login = answer.geturl()
        token = re.search(r'name="csrfmiddlewaretoken" value="(\w+)"', answer.read().decode())
    assert token
    given = {"username": username, "password": password, "csrfmiddlewaretoken": token[1], "next": path}
    with opener.open(login, urllib.parse.urlencode(given).encode(), timeout=60) as answer:
        assert urllib.parse.urlsplit(answer.geturl()).path == path
        return str(answer.read().decode())
