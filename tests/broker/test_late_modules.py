"""A module that is put off is the real one, is executed once, and only when its names are asked for."""

from __future__ import annotations

import json
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from importlib import import_module, reload
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from i3tasks.broker.late_modules import answer, put_off
from i3tasks.broker.loading import GUESSING, SIGNING
from tests.support.oidc import key

ROOT = Path(__file__).resolve().parents[2]
NAME = "latepackage.late"


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], Path]]:
    """Write the module `latepackage.late`, which notes its executions in a file. Returns the file."""
    executed = tmp_path / "executed"

    def write(code: str) -> Path:
        (tmp_path / "latepackage").mkdir()
        (tmp_path / "latepackage" / "__init__.py").touch()
        note = f"with open({str(executed)!r}, 'a') as file: file.write('x')\n"
        (tmp_path / "latepackage" / "late.py").write_text(note + textwrap.dedent(code))
        return executed

    monkeypatch.syspath_prepend(str(tmp_path))
    before = list(sys.meta_path)
    yield write
    assert sys.meta_path == before
    for name in ("latepackage", NAME):
        sys.modules.pop(name, None)


def test_it_is_executed_when_a_name_is_asked_for(package: Callable[[str], Path]) -> None:
    executed = package("import sys\nvalue = 1\nitself = sys.modules[__name__].value")

    put_off(NAME)
    module = import_module(NAME)
    from latepackage import late  # type: ignore[import-not-found]

    assert late is module is sys.modules[NAME]
    assert (module.__name__, Path(module.__file__ or "").name) == (NAME, "late.py")
    assert not executed.exists()

    assert (module.value, module.itself) == (1, 1)
    assert type(module) is ModuleType
    assert executed.read_text() == "x"
    assert reload(module).value == 1


@pytest.mark.parametrize("ask", [dir, vars, lambda module: hasattr(module, "nothing")], ids=["dir", "vars", "hasattr"])
def test_every_question_about_its_names_executes_it(package: Callable[[str], Path], ask: Callable[[Any], Any]) -> None:
    executed = package("value = 1")
    put_off(NAME)
    ask(sys.modules[NAME])
    assert executed.read_text() == "x"


def test_what_is_answered_for_it_does_not_execute_it(package: Callable[[str], Path]) -> None:
    executed = package("value = 1\n__version__ = '2'")
    put_off(NAME)
    answer(NAME, "__version__", "1")
    module = sys.modules[NAME]
    assert module.__version__ == "1"
    assert not executed.exists()

    assert (module.value, module.__version__) == (1, "2")
    answer(NAME, "__version__", "1")
    answer("latepackage.missing", "__version__", "1")
    assert module.__version__ == "2"
    assert executed.read_text() == "x"


def test_threads_that_ask_at_the_same_time_wait_until_it_is_executed_once(package: Callable[[str], Path]) -> None:
    executed = package("import time\nearly = 1\ntime.sleep(0.1)\ndef late(): return last\nlast = 2")
    put_off(NAME)
    module, count = sys.modules[NAME], 8
    start = threading.Barrier(count)

    def ask(number: int) -> int:
        start.wait()
        return int(module.late() if number % 2 else module.early)

    with ThreadPoolExecutor(count) as pool:
        assert sorted(pool.map(ask, range(count))) == [1] * 4 + [2] * 4
    assert executed.read_text() == "x"


def test_an_error_in_it_is_raised_each_time(package: Callable[[str], Path]) -> None:
    executed = package("value = 1 / 0")
    put_off(NAME)
    for _ in range(2):
        with pytest.raises(ZeroDivisionError):
            _ = sys.modules[NAME].value
    assert executed.read_text() == "xx"


def test_what_is_imported_already_and_what_is_missing_are_left_alone(package: Callable[[str], Path]) -> None:
    executed = package("value = 1")
    module = import_module(NAME)
    put_off(NAME)
    put_off("latepackage.missing")
    assert sys.modules[NAME] is module
    assert executed.read_text() == "x"
    with pytest.raises(ModuleNotFoundError):
        import_module("latepackage.missing")


def fresh(code: str) -> Any:
    """The JSON that a fresh interpreter prints, after it has made the clients of an emulator."""
    clients = """
        import json, sys
        from i3tasks.broker.loading import importing
        with importing():
            from i3tasks.broker import clients, sending, streaming, topic_admin
        from i3tasks.conf import PubSubConfig
        emulator = PubSubConfig(True, "127.0.0.1:1", "shop-1", None)
        made = [*clients.make_admin(emulator), clients.make_streaming(streaming._Subscriber, emulator)]
        signs = "cryptography" in sys.modules
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(clients) + textwrap.dedent(code)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_clients_of_an_emulator_do_not_load_what_signs() -> None:
    assert fresh(f"print(json.dumps([signs, sys.modules[{SIGNING!r}].Credentials.__module__]))") == [False, SIGNING]


def test_clients_of_an_emulator_load_nothing_that_guesses_encodings_and_requests_guesses_afterwards() -> None:
    code = f"""
        import requests
        loaded = {GUESSING!r} + ".api" in sys.modules
        page = requests.Response()
        page._content = b"a page of plain text"
        print(json.dumps([loaded, page.apparent_encoding]))
    """
    assert fresh(code) == [False, "ascii"]


def test_tokens_are_signed_and_verified_afterwards_by_several_threads_at_once() -> None:
    code = f"""
        import threading, time
        from concurrent.futures import ThreadPoolExecutor
        from google.oauth2 import service_account
        account = dict(private_key={key("k1").private.decode()!r}, client_email="a@b.example", token_uri="http://c/")
        start = threading.Barrier(8)

        def sign(number):
            start.wait()
            if number % 2:
                from google.auth import crypt, jwt
            signer = service_account.Credentials.from_service_account_info(account).signer
            from google.auth import jwt
            token = jwt.encode(signer, dict(iat=int(time.time()), exp=int(time.time()) + 60, sub=str(number)))
            return jwt.decode(token, certs={key("k1").certificate!r})["sub"], type(signer).__module__

        with ThreadPoolExecutor(8) as pool:
            print(json.dumps([signs, sorted(pool.map(sign, range(8)))]))
    """
    signs, signed = fresh(code)
    assert not signs
    assert [subject for subject, _ in signed] == [str(number) for number in range(8)]
    assert {module.rpartition(".")[0] for _, module in signed} == {"google.auth.crypt"}


@pytest.mark.parametrize("how", ["of the settings", "by default"])
def test_a_key_file_makes_clients_of_the_service_afterwards(tmp_path: Path, how: str) -> None:
    account = {
        "type": "service_account",
        "private_key": key("k1").private.decode(),
        "client_email": "tasks@shop-1.iam.gserviceaccount.com",
        "token_uri": "https://127.0.0.1:1/token",
    }
    path = tmp_path / "key.json"
    path.write_text(json.dumps(account))
    code = f"""
        import os
        given = {str(path)!r} if {how!r} == "of the settings" else None
        os.environ["GOOGLE_APPLICATION_CREDENTIALS"] = "" if given else {str(path)!r}
        client = clients.make_publisher(PubSubConfig(False, None, "shop-1", given))
        print(json.dumps([signs, client.transport._credentials.service_account_email]))
    """
    assert fresh(code) == [False, account["client_email"]]
