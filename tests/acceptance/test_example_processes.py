"""Nothing that the examples start is left behind, whenever they are told to stop."""

import contextlib
import importlib.util
import os
import signal
import subprocess
import sys
from types import ModuleType
from typing import Any

import psutil
import pytest

from tests.acceptance.conftest import ROOT

SLEEP = [sys.executable, "-c", "import time; time.sleep(60)"]


@pytest.fixture
def processes() -> ModuleType:
    spec = importlib.util.spec_from_file_location("example_processes", ROOT / "examples" / "processes.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_ctrl_c_while_a_child_is_being_started_stops_it(processes: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[psutil.Process] = []
    popen = subprocess.Popen

    def interrupted(*arguments: Any, **options: Any) -> Any:
        child = popen(*arguments, **options)
        started.append(psutil.Process(child.pid))
        signal.raise_signal(signal.SIGINT)
        return child

    monkeypatch.setattr(subprocess, "Popen", interrupted)
    with pytest.raises(KeyboardInterrupt), contextlib.ExitStack() as running:
        processes.start(running, "sleep", SLEEP, env=os.environ, cwd=ROOT, log=None)

    assert [child.is_running() for child in started] == [False]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_a_second_ctrl_c_does_not_spare_what_is_slow_to_stop(
    processes: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    process = processes.Process("sleep", SLEEP, env=os.environ, cwd=ROOT, log=None)
    child = psutil.Process(process._popen.pid)

    def interrupt() -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(process._popen, "terminate", interrupt)
    with pytest.raises(KeyboardInterrupt):
        process.stop()
    assert not child.is_running()
