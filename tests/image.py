"""Runs the steps of the shop's image without containers, in an empty environment: `python -m tests.image`.

The folders of the image lie below a temporary one; the package index gives what its `pip install` asks for. In the end
the image has migrated, taken an order over HTTP, run its task with `i3tasks run-worker`, and stopped on SIGTERM.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
DOCKERFILE = ROOT / "examples" / "shop" / "Dockerfile"
START_SECONDS = 60


def steps(text: str) -> list[tuple[str, str]]:
    """Its instructions, each with its arguments in one line."""
    lines = re.sub(r"^#.*\n", "", text, flags=re.MULTILINE).replace("\\\n", " ").splitlines()
    return [(name, rest.strip()) for name, _, rest in (line.partition(" ") for line in lines if line.strip())]


@dataclass
class Image:
    """What the steps make, below a folder that stands for `/`."""

    root: Path
    environ: dict[str, str] = field(default_factory=dict)
    folder: str = "/"
    command: list[str] = field(default_factory=list)

    def build(self) -> None:
        for name, rest in steps(DOCKERFILE.read_text(encoding="utf-8")):
            getattr(self, f"step_{name.lower()}")(rest)

    def step_from(self, image: str) -> None:
        assert re.fullmatch(r"python:3\.\d+-slim", image), image
        subprocess.run([sys.executable, "-m", "venv", self.root / "usr"], check=True)
        kept = {"HOME", "LANG", "SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "TMPDIR"}
        self.environ = {name: value for name, value in os.environ.items() if name in kept or name.startswith("PIP_")}
        self.environ["PATH"] = f"{self.root / 'usr' / 'bin'}{os.pathsep}{os.defpath}"

    def step_env(self, rest: str) -> None:
        self.environ |= dict(pair.split("=", 1) for pair in shlex.split(rest))

    def step_workdir(self, path: str) -> None:
        self.folder = path
        self.at(path).mkdir(parents=True, exist_ok=True)

    def step_copy(self, rest: str) -> None:
        *sources, target = shlex.split(rest)
        for source in (ROOT / each for each in sources):
            into = self.at(target) / source.name if target.endswith("/") else self.at(target)
            into.parent.mkdir(parents=True, exist_ok=True)
            if source.is_dir():
                ignored = shutil.ignore_patterns("__pycache__", "*.sqlite3*")
                shutil.copytree(source, into, dirs_exist_ok=True, ignore=ignored)
            else:
                shutil.copy(source, into)

    def step_run(self, rest: str) -> None:
        words = shlex.split(rest)
        if words[0] == "useradd":  # a container's own user
            return
        assert words[:2] == ["pip", "install"], f"what is this to do without a container? RUN {rest}"
        self.run("python", "-m", *(f"{self.root}{word}" if word.startswith("/") else word for word in words))

    def step_user(self, rest: str) -> None:
        """Nothing: the user of this process it is."""

    def step_cmd(self, rest: str) -> None:
        self.command = json.loads(rest)

    def at(self, path: str) -> Path:
        return self.root / path.strip("/")

    def run(self, *words: str) -> str:
        done = subprocess.run(
            words, cwd=self.at(self.folder), env=self.environ, capture_output=True, text=True, check=False
        )
        if done.returncode:
            raise SystemExit(f"{shlex.join(words)}:\n{done.stdout}{done.stderr}")
        return done.stdout


def serve_and_work(image: Image) -> None:
    """Its own command, at a free port of this machine alone; then the command of a worker."""
    port = free_port()
    addresses = {"0.0.0.0": "127.0.0.1", "8080": str(port)}
    command = [addresses.get(word, word) for word in image.command]
    image.environ |= {"SECRET_KEY": "x", "PUBSUB_HOST": f"127.0.0.1:{free_port()}"}
    image.run("python", "manage.py", "migrate", "--verbosity", "0")
    with subprocess.Popen(command, cwd=image.at(image.folder), env=image.environ) as server:
        try:
            site = f"http://127.0.0.1:{port}"
            wait_for(f"{site}/ready/", server)
            given = {"Content-Type": "application/json"}
            order = urllib.request.Request(f"{site}/orders/", b'{"email": "ada@example.com"}', given)
            with answer_of(order) as answer:
                uuid = json.load(answer)["receipt"]
            image.run("i3tasks", "run-worker", "--until-empty")
            shown = image.run("i3tasks", "status", uuid, "--json")
            assert "sent to ada@example.com" in shown, shown
            with answer_of(urllib.request.Request(f"{site}/i3/tasks-metrics/")) as answer:
                assert b"i3tasks_" in answer.read()
        finally:
            server.terminate()
    assert server.returncode in (0, -15), server.returncode


def wait_for(url: str, server: subprocess.Popen[bytes]) -> None:
    end = time.monotonic() + START_SECONDS
    while time.monotonic() < end and server.poll() is None:
        try:
            with answer_of(urllib.request.Request(url)):
                return
        except OSError:
            time.sleep(0.1)
    raise SystemExit(f"{url} does not answer.")


def answer_of(request: urllib.request.Request):  # type: ignore[no-untyped-def]
    return urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=10)


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def main() -> None:
    with tempfile.TemporaryDirectory() as made:
        image = Image(Path(made).resolve())
        image.build()
        serve_and_work(image)
    print("The steps of the shop's image run, and the shop takes an order.")


if __name__ == "__main__":
    main()
