"""The command line and the child process."""

from __future__ import annotations

import json
import os
import queue
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import grpc
import pytest
from google.pubsub_v1 import types

from i3tasks.emulator import EmulatorError, EmulatorProcess, Seed, main
from i3tasks.emulator.seed import SeedError

SECONDS = 20


@contextmanager
def _running(command: list[str], cwd: Path | None = None) -> Iterator[subprocess.Popen[str]]:
    """The process, which does not outlive the block."""
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(command, text=True, cwd=cwd, **pipes) as process:
        try:
            yield process
        finally:
            process.kill()


def _emulator(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "i3tasks.emulator", *arguments]


def _ready(process: subprocess.Popen[str]) -> str:
    """The address in its first line."""
    assert process.stdout is not None
    return process.stdout.readline().split("PUBSUB_EMULATOR_HOST=")[1].split()[0]


def _failure(*arguments: str) -> str:
    """What it says when it can't start: one line, and no trace."""
    with _running(_emulator(*arguments)) as process:
        output, errors = process.communicate(timeout=SECONDS)
    assert process.returncode == 1
    assert output == ""
    assert len(errors.strip().splitlines()) == 1
    return errors


def _topics(host_port: str, project: str = "demo") -> list[str]:
    with grpc.insecure_channel(host_port) as channel:
        rpc = channel.unary_unary(
            "/google.pubsub.v1.Publisher/ListTopics",
            request_serializer=types.ListTopicsRequest.serialize,
            response_deserializer=types.ListTopicsResponse.deserialize,
        )
        answer = rpc(types.ListTopicsRequest(project=f"projects/{project}"), timeout=SECONDS)
    return [topic.name for topic in answer.topics]


def test_it_says_in_one_line_what_to_set_and_stops_on_sigterm(tmp_path: Path) -> None:
    with _running(_emulator("--host-port", "127.0.0.1:0"), cwd=tmp_path) as process:
        assert _topics(_ready(process)) == []
        process.send_signal(signal.SIGTERM)
        output, errors = process.communicate(timeout=SECONDS)
    assert (process.returncode, output, errors) == (0, "", "")
    assert {path.name for path in (tmp_path / ".i3tasks-emulator").iterdir()} == {".gitignore", "emulator.sqlite3"}


def test_it_stops_with_streams_open(tmp_path: Path) -> None:
    seed = Seed(project="demo", topics=["topic"], subscriptions=[{"name": "sub", "topic": "topic"}])
    emulator = EmulatorProcess(seed=seed).start()
    with grpc.insecure_channel(emulator.host_port) as channel:
        rpc = channel.stream_stream(
            "/google.pubsub.v1.Subscriber/StreamingPull",
            request_serializer=types.StreamingPullRequest.serialize,
            response_deserializer=types.StreamingPullResponse.deserialize,
        )
        first = types.StreamingPullRequest(
            subscription="projects/demo/subscriptions/sub", stream_ack_deadline_seconds=10
        )
        requests = queue.SimpleQueue[types.StreamingPullRequest]()
        requests.put(first)
        call = rpc(iter(requests.get, None), timeout=SECONDS)
        next(call)
        emulator.stop()
        with pytest.raises(grpc.RpcError):
            list(call)


def test_a_port_in_use_is_one_sentence(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert "--host-port" in _failure("--host-port", f"127.0.0.1:{port}", "--in-memory")


def test_two_emulators_do_not_share_a_port() -> None:
    with EmulatorProcess() as first:
        assert "in use" in _failure("--host-port", first.host_port, "--in-memory")


def test_a_folder_that_is_no_folder_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert "data folder" in _failure("--host-port", "127.0.0.1:0", "--data-dir", str(tmp_path / "file" / "data"))


@pytest.mark.skipif(os.geteuid() == 0, reason="root writes anywhere")
def test_an_unwritable_folder_is_one_sentence(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    assert "data folder" in _failure("--host-port", "127.0.0.1:0", "--data-dir", str(tmp_path / "data"))


def test_a_folder_in_use_is_one_sentence(tmp_path: Path) -> None:
    with EmulatorProcess(tmp_path):
        assert "another emulator" in _failure("--host-port", "127.0.0.1:0", "--data-dir", str(tmp_path))


def test_a_broken_file_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "emulator.sqlite3").write_bytes(b"not a database at all" * 100)
    assert "data folder" in _failure("--host-port", "127.0.0.1:0", "--data-dir", str(tmp_path))


def test_a_disk_that_takes_no_more_ends_it_with_a_sentence(tmp_path: Path) -> None:
    with _running(_on_a_small_disk("--data-dir", str(tmp_path))) as process:
        with grpc.insecure_channel(_ready(process)) as channel, pytest.raises(grpc.RpcError) as refusal:
            _fill_disk(channel)
        _, errors = process.communicate(timeout=SECONDS)
    assert refusal.value.code() is grpc.StatusCode.UNAVAILABLE
    assert process.returncode == 1
    assert "can't write its data" in errors
    assert "Traceback" not in errors


def test_a_seed_that_the_disk_does_not_take_is_one_sentence_and_never_ready(tmp_path: Path) -> None:
    seed = tmp_path / "seed.toml"
    seed.write_text(f"topics = {[f'projects/demo/topics/t{number:0200}' for number in range(5_000)]}")
    with _running(_on_a_small_disk("--data-dir", str(tmp_path / "data"), "--seed", str(seed))) as process:
        output, errors = process.communicate(timeout=SECONDS)
    assert process.returncode == 1
    assert output == ""
    assert "can't write its data" in errors
    assert "Traceback" not in errors


def _on_a_small_disk(*arguments: str) -> list[str]:
    code = (
        "import resource, sys; from i3tasks.emulator import main\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (2_000_000, 2_000_000))\n"
        f"sys.exit(main(['--host-port', '127.0.0.1:0', *{arguments!r}]))"
    )
    return [sys.executable, "-c", code]


def _fill_disk(channel: grpc.Channel) -> None:
    topic = types.Topic(name="projects/demo/topics/full", message_retention_duration={"seconds": 600})
    channel.unary_unary("/google.pubsub.v1.Publisher/CreateTopic")(types.Topic.serialize(topic), timeout=SECONDS)
    request = types.PublishRequest(topic=topic.name, messages=[types.PubsubMessage(data=b"x" * 300_000)])
    for _ in range(20):
        channel.unary_unary("/google.pubsub.v1.Publisher/Publish")(
            types.PublishRequest.serialize(request), timeout=SECONDS
        )


def test_listening_beyond_loopback_is_said() -> None:
    with _running(_emulator("--host-port", "0.0.0.0:0", "--in-memory")) as process:
        _ready(process)
        process.terminate()
        _, errors = process.communicate(timeout=SECONDS)
    assert "anyone who reaches this address" in errors


@pytest.mark.parametrize("value", ["8085", ":8085", "host:", "host:x", "host:99999", "host:-1"])
def test_host_and_port_are_both_needed(value: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main(["--host-port", value])
    assert end.value.code == 2
    assert "HOST:PORT" in capsys.readouterr().err


def test_it_loads_neither_django_nor_the_clients() -> None:
    code = (
        "import sys, i3tasks.emulator.service\n"
        "names = ('django', 'google.cloud.pubsub_v1', 'google.pubsub_v1.services')\n"
        "print([name for name in names if name in sys.modules])"
    )
    output = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=SECONDS, check=True)
    assert output.stdout.strip() == "[]"


def test_the_package_it_defers_can_still_be_imported() -> None:
    code = (
        "import i3tasks.emulator.wire as wire, google.pubsub_v1, google.cloud.pubsub_v1\n"
        "from google.pubsub_v1 import PublisherClient\n"
        "assert google.pubsub_v1.types.Topic.pb() is wire.Topic\n"
        "assert google.pubsub_v1.SubscriberClient and google.cloud.pubsub_v1.PublisherClient"
    )
    subprocess.run([sys.executable, "-W", "error", "-c", code], timeout=SECONDS, check=True)


# -- seeds


SEED = """
project = "demo"

[[topics]]
name = "mail"

[[topics]]
name = "projects/other/topics/letters"
labels = { team = "a" }

[[subscriptions]]
name = "mail-worker"
topic = "mail"
ack_deadline_seconds = 30
retry_policy = { minimum_backoff = "1s", maximum_backoff = "60s" }
dead_letter_policy = { dead_letter_topic = "projects/other/topics/letters" }
"""


def test_a_seed_creates_topics_and_subscriptions(tmp_path: Path) -> None:
    path = tmp_path / "seed.toml"
    path.write_text(SEED)
    with EmulatorProcess(seed=path) as emulator:
        assert _topics(emulator.host_port) == ["projects/demo/topics/mail"]
        assert _topics(emulator.host_port, "other") == ["projects/other/topics/letters"]


def test_a_seed_may_be_planted_again_and_changed(tmp_path: Path) -> None:
    fields = {"name": "sub", "topic": "topic", "ack_deadline_seconds": 20}
    for seconds in (20, 40):
        seed = Seed(project="demo", topics=["topic"], subscriptions=[{**fields, "ack_deadline_seconds": seconds}])
        with EmulatorProcess(tmp_path, seed=seed) as emulator:
            assert _subscription(emulator.host_port).ack_deadline_seconds == seconds


def _subscription(host_port: str) -> types.Subscription:
    with grpc.insecure_channel(host_port) as channel:
        rpc = channel.unary_unary(
            "/google.pubsub.v1.Subscriber/GetSubscription",
            request_serializer=types.GetSubscriptionRequest.serialize,
            response_deserializer=types.Subscription.deserialize,
        )
        request = types.GetSubscriptionRequest(subscription="projects/demo/subscriptions/sub")
        found: types.Subscription = rpc(request, timeout=SECONDS)
        return found


@pytest.mark.parametrize(
    ("text", "about"),
    [
        ("topics = [", "not valid"),
        ("tpoics = []", "tpoics"),
        ('topics = ["short"]', "projects/PROJECT"),
        ("topics = [1]", "name"),
        ('project = "p"\nsubscriptions = [{ name = "sub" }]', "refused"),
        ('project = "p"\ntopics = [{ name = "abc", nonsense = 1 }]', "nonsense"),
    ],
)
def test_a_wrong_seed_is_one_sentence(tmp_path: Path, text: str, about: str) -> None:
    path = tmp_path / "seed.toml"
    path.write_text(text)
    assert about in _failure("--in-memory", "--host-port", "127.0.0.1:0", "--seed", str(path))


def test_a_missing_seed_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(SeedError, match="Can't read"):
        Seed.read(tmp_path / "missing.toml")


def test_a_seed_is_the_same_in_json() -> None:
    seed = Seed(project="demo", topics=["mail"], subscriptions=[{"name": "sub", "topic": "mail"}])
    again = Seed.from_content(json.loads(seed.as_json()))
    assert again.full_subscriptions() == seed.full_subscriptions()


# -- the child process


def test_a_process_can_be_killed_and_its_folder_used_again(tmp_path: Path) -> None:
    emulator = EmulatorProcess(tmp_path, seed=Seed(topics=["projects/demo/topics/mail"])).start()
    emulator.kill()
    assert emulator.wait() == -signal.SIGKILL
    with EmulatorProcess(tmp_path) as emulator:
        assert _topics(emulator.host_port) == ["projects/demo/topics/mail"]


def test_a_process_that_can_not_start_says_why(tmp_path: Path) -> None:
    (tmp_path / "emulator.sqlite3").write_bytes(b"not a database at all" * 100)
    with pytest.raises(EmulatorError, match="data folder"):
        EmulatorProcess(tmp_path).start()


def test_a_process_does_not_outlive_its_parent() -> None:
    code = (
        "from i3tasks.emulator import EmulatorProcess\nprint(EmulatorProcess().start().host_port, flush=True)\ninput()"
    )
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen([sys.executable, "-c", code], text=True, **pipes) as parent:
        assert parent.stdout is not None
        host, port = parent.stdout.readline().strip().split(":")
        with socket.create_connection((host, int(port)), timeout=SECONDS) as connection:
            parent.kill()
            while connection.recv(1_024):
                pass  # the connection ends with the process at its other end
