"""The emulator as a child process."""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

from ..exceptions import I3TasksError

if TYPE_CHECKING:
    from .seed import Seed

START_SECONDS = 30.0
STOP_SECONDS = 10.0

_READY = re.compile(r"PUBSUB_EMULATOR_HOST=(\S+)(?:.*certificates: (\S+)\))?")


class EmulatorError(I3TasksError):
    """The emulator did not start. Its output says why."""


class EmulatorProcess:
    """Runs `python -m i3tasks.emulator` while the `with` block lasts, or from `start` to `stop`.

    Without `data_dir`, the emulator keeps nothing after it ends. It never outlives the process that started it.
    """

    def __init__(
        self, data_dir: Path | None = None, host_port: str = "127.0.0.1:0", seed: Seed | Path | None = None
    ) -> None:
        self._data_dir = data_dir
        self._wanted = host_port
        self._seed = seed
        self._process: subprocess.Popen[str] | None = None
        self._host_port = ""
        self._certificates_url = ""

    @property
    def host_port(self) -> str:
        """The address on which the emulator listens: the value for PUBSUB_EMULATOR_HOST."""
        return self._host_port

    @property
    def certificates_url(self) -> str:
        """The URL of the certificates that check the tokens of its pushes."""
        return self._certificates_url

    @property
    def pid(self) -> int:
        """The id of the emulator's process."""
        return self._running().pid

    @property
    def is_running(self) -> bool:
        """Tell whether the emulator was started and has not ended."""
        return self._process is not None and self._process.poll() is None

    def start(self) -> EmulatorProcess:
        """Start the emulator and wait until it takes connections."""
        with tempfile.TemporaryDirectory() as folder:
            self._process = subprocess.Popen(
                self._command(Path(folder)),
                stdin=subprocess.PIPE,  # never written to; it closes when this process dies
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                process_group=0,  # keeps Ctrl-C in a terminal from it: the parent may need it until it has drained
            )
            output = _Output(self._process)
            ready = output.wait_for_ready(START_SECONDS)
        if ready is None:
            self.kill()
            raise EmulatorError("The emulator did not start. " + (output.before or "It said nothing."))
        self._host_port, self._certificates_url = ready[1], ready[2] or ""
        return self

    def stop(self) -> None:
        """Ask the emulator to stop (SIGTERM), and kill it if it does not."""
        self._running().terminate()
        try:
            self.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self.kill()

    def kill(self) -> None:
        """Kill the emulator (SIGKILL). Its folder keeps everything that was committed."""
        self._running().kill()
        self.wait()

    def wait(self, timeout: float | None = None) -> int:
        """Wait for its end. Returns the exit code, negative for a signal. Raises subprocess.TimeoutExpired."""
        process = self._running()
        code = process.wait(timeout)
        if process.stdin is not None:
            process.stdin.close()
        return code

    def __enter__(self) -> EmulatorProcess:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._running().poll() is None:
            self.stop()
        else:
            self.wait()

    def _running(self) -> subprocess.Popen[str]:
        if self._process is None:
            raise EmulatorError("The emulator was not started. Call start(), or use it in a `with` statement.")
        return self._process

    def _command(self, folder: Path) -> list[str]:
        from .seed import Seed  # late: every worker on an emulator imports this module, and most start none

        kept = ["--data-dir", str(self._data_dir)] if self._data_dir is not None else ["--in-memory"]
        command = [sys.executable, "-m", "i3tasks.emulator", "--host-port", self._wanted, *kept, "--exit-with-parent"]
        if isinstance(self._seed, Seed):
            path = folder / "seed.json"
            path.write_text(self._seed.as_json(), encoding="utf-8")
            command += ["--seed", str(path)]
        elif self._seed is not None:
            command += ["--seed", str(self._seed)]
        return command


class _Output:
    """Reads the child's output. The ready line is for the parent; all other lines go to the parent's stderr."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.before = ""
        self._ready: re.Match[str] | None = None
        self._known = threading.Event()
        threading.Thread(target=self._read, args=(process,), daemon=True).start()

    def wait_for_ready(self, seconds: float) -> re.Match[str] | None:
        """Wait for the ready line. Returns its match, or None if the child ended or did not print it in time."""
        self._known.wait(seconds)
        return self._ready

    def _read(self, process: subprocess.Popen[str]) -> None:
        assert process.stdout is not None
        with process.stdout as lines:
            for line in lines:
                ready = None if self._ready else _READY.search(line)
                if ready is not None:
                    self._ready = ready
                    self._known.set()
                elif self._ready is None:
                    self.before += line
                else:
                    print(line, end="", file=sys.stderr)
        self._known.set()
