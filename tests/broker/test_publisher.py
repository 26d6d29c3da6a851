"""Publishing, on both emulators: through outages, restarts, forks and exits."""

from __future__ import annotations

import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest

from i3tasks.broker import publisher as publishing
from i3tasks.broker.errors import BrokerInvalid, BrokerMissing, BrokerUnavailable
from i3tasks.broker.publisher import Outgoing, Publisher, get_publisher
from i3tasks.exceptions import BrokerError
from tests.broker.conftest import SECONDS, eventually, new_emulator, publish_all
from tests.broker.proxy import Proxy
from tests.support.databases import child_environment

if TYPE_CHECKING:
    from tests.broker.conftest import Broker, Events


def test_a_message_arrives_with_its_attributes_and_is_confirmed(broker: Broker) -> None:
    broker.ensure()

    outcomes = broker.publish(b"hello")

    assert outcomes.wait() == [None]
    assert outcomes.threads == {"i3tasks-publisher"}
    assert broker.pull(1) == [b"hello"]


def test_a_hundred_threads_share_one(broker: Broker) -> None:
    broker.ensure()
    publisher = get_publisher()
    before = set(threading.enumerate())  # a publisher of an earlier test may still be closing

    with ThreadPoolExecutor(100) as threads:
        outcomes = list(threads.map(lambda n: publish_all(publisher, broker.queue.topic, (b"%d" % n,)), range(100)))

    assert [one.wait() for one in outcomes] == [[None]] * 100
    assert [each.name for each in set(threading.enumerate()) - before].count("i3tasks-publisher") == 1
    assert sorted(broker.pull(100)) == sorted(b"%d" % n for n in range(100))


def test_what_is_queued_meanwhile_goes_in_one_request(broker: Broker, monkeypatch: pytest.MonkeyPatch) -> None:
    from i3tasks.broker.sending import Sender

    sizes: list[int] = []
    blocked = threading.Event()
    send = Sender.send

    def counting(self: Sender, topic: str, messages: Any, **how: Any) -> None:
        blocked.wait(SECONDS)
        sizes.append(len(messages))
        send(self, topic, messages, **how)

    monkeypatch.setattr(Sender, "send", counting)
    broker.ensure()
    first = broker.publish(b"0")
    eventually(lambda: not get_publisher()._batches._ready, "the first message is being sent")
    rest = broker.publish(*(b"%d" % n for n in range(1, 1501)))
    blocked.set()

    assert {*first.wait(), *rest.wait()} == {None}
    assert sizes == [1, 1000, 500]


def test_the_first_publish_makes_what_is_missing(broker: Broker, events: Events) -> None:
    assert broker.publish(b"first").wait() == [None]

    assert broker.pull(1) == [b"first"]
    assert len(events.named("provisioned")) == 4


def test_a_missing_topic_is_named_with_what_to_do(broker: Broker) -> None:
    broker.change(run_queue_create_command_on_startup=False)

    [error] = broker.publish(b"lost").wait()

    assert isinstance(error, BrokerMissing)
    assert get_publisher().is_refused_by(broker.queue.topic)
    assert get_publisher().trouble == get_publisher().fresh_trouble == str(error)
    assert broker.queue.topic in str(error)
    assert "i3tasks ensure-pubsub" in str(error)


def test_a_topic_that_vanished_is_made_again_and_the_message_sent(broker: Broker) -> None:
    assert broker.publish(b"before").wait() == [None]
    with broker.admin() as admin:
        admin.publisher.delete_topic(topic=broker.queue.topic)
        admin.subscriber.delete_subscription(subscription=broker.queue.subscription)

    assert broker.publish(b"after").wait() == [None]
    assert broker.pull(1) == [b"after"]
    assert get_publisher().trouble is None


def test_provisioning_that_is_refused_is_a_warning(
    broker: Broker, events: Events, monkeypatch: pytest.MonkeyPatch
) -> None:
    broker.ensure()

    def refuse(*args: Any, **kwargs: Any) -> Any:
        raise BrokerError("no permission")

    monkeypatch.setattr("i3tasks.broker.provisioning.ensure", refuse)

    assert broker.publish(b"sent all the same").wait() == [None]
    assert events.named("provisioning_failed") == [{"error": "no permission"}]


# -------------------------------------------------------------------------------------------- bad messages


def test_a_message_that_is_refused_fails_alone(broker: Broker) -> None:
    broker.ensure()
    data = [b"%d" % n for n in range(10)]
    data[7] = b""  # without data and attributes: invalid

    outcomes = broker.publish(*data).wait()

    assert isinstance(outcomes.pop(7), BrokerInvalid)
    assert outcomes == [None] * 9
    assert sorted(broker.pull(9)) == sorted(one for one in data if one)


def test_a_message_that_is_too_large_fails_alone(broker: Broker) -> None:
    broker.ensure()

    outcomes = broker.publish(b"1", b"x" * 10_000_001, b"2").wait()

    assert isinstance(outcomes[1], BrokerInvalid)
    assert "10 MB" in str(outcomes[1])
    assert (outcomes[0], outcomes[2]) == (None, None)
    assert sorted(broker.pull(2)) == [b"1", b"2"]


def test_a_callback_that_raises_hurts_no_other(broker: Broker, events: Events) -> None:
    broker.ensure()

    def broken(*_: Any) -> None:
        raise RuntimeError("oops")

    get_publisher().publish(Outgoing(broker.queue.topic, b"1", {}, broken))

    assert broker.publish(b"2").wait() == [None]
    assert "oops" in events.wait_for("internal_error")["error"]


def test_messages_with_one_callback_share_its_calls(broker: Broker) -> None:
    broker.ensure()
    told: list[tuple[list[Any], BrokerError | None]] = []
    attributes = {"encoding": "utf-8"}

    def on_done(messages: Sequence[Outgoing], error: BrokerError | None) -> None:
        told.append(([message.about for message in messages], error))

    def alone(messages: Sequence[Outgoing], error: BrokerError | None) -> None:
        on_done(messages, error)

    callbacks = [on_done, on_done, alone, alone, on_done]
    topic = broker.queue.topic
    messages = [Outgoing(topic, b"%d" % n, attributes, callbacks[n], about=n) for n in range(5)]

    assert get_publisher().publish(*messages)
    assert get_publisher().flush(SECONDS)
    assert told == [([0, 1], None), ([2, 3], None), ([4], None)]
    assert sorted(broker.pull(5)) == [b"0", b"1", b"2", b"3", b"4"]


def test_messages_are_made_in_the_thread_and_one_that_can_not_be_hurts_no_other(broker: Broker, events: Events) -> None:
    broker.ensure()
    makers: set[str] = set()

    def make(data: bytes) -> Outgoing:
        makers.add(threading.current_thread().name)
        return Outgoing(broker.queue.topic, data, {}, lambda *_: None)

    def broken() -> Outgoing:
        raise RuntimeError("oops")

    assert get_publisher().publish(partial(make, b"1"), broken, partial(make, b"2"))
    assert sorted(broker.pull(2)) == [b"1", b"2"]
    assert makers == {"i3tasks-publisher"}
    assert "oops" in events.wait_for("internal_error")["error"]


def test_a_full_queue_says_no(broker: Broker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(publishing, "_MAXIMUM_QUEUED", 0)
    publisher = Publisher(broker.config)

    assert publisher.publish(Outgoing(broker.queue.topic, b"x", {}, lambda *_: None)) is False


# ------------------------------------------------------------------------------------------------ outages


@pytest.mark.usefixtures("impatient")
def test_an_outage_fails_messages_and_ends(broker: Broker, wire: Proxy, events: Events) -> None:
    broker.ensure()
    assert broker.publish(b"before").wait() == [None]
    wire.cut()

    errors = broker.publish(*[b"during"] * 20).wait()

    assert all(isinstance(error, BrokerUnavailable) for error in errors)
    assert "i3tasks emulator" in str(errors[0])
    assert not get_publisher().is_available

    wire.heal()
    eventually(lambda: broker.publish(b"after").wait() == [None], "the publisher recovers")

    assert get_publisher().is_available
    assert len(events.named("broker_unavailable")) == 1
    assert len(events.named("broker_recovered")) == 1
    assert set(broker.pull(2)) == {b"before", b"after"}


@pytest.mark.usefixtures("impatient")
def test_a_flood_during_an_outage_is_no_flood_of_requests(
    broker: Broker, wire: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    from i3tasks.broker.sending import Sender

    requests: list[str] = []
    send = Sender.send

    def counting(self: Sender, topic: str, *args: Any, **how: Any) -> None:
        requests.append(topic)
        send(self, topic, *args, **how)

    broker.ensure()
    assert broker.publish(b"before").wait() == [None]
    monkeypatch.setattr(Sender, "send", counting)
    monkeypatch.setattr("i3tasks.broker.circuit.PROBE_SECONDS", 1000.0)
    wire.cut()

    for _ in range(50):
        [error] = broker.publish(b"during").wait()
        assert isinstance(error, BrokerUnavailable)

    assert len(requests) == 1


@pytest.mark.usefixtures("impatient")
def test_publishing_takes_no_longer_while_the_broker_is_away(broker: Broker, wire: Proxy) -> None:
    def longest() -> float:
        def one() -> float:
            start = time.perf_counter()
            broker.publish(b"x")
            return time.perf_counter() - start

        return sorted(one() for _ in range(200))[-10]  # nine may meet a garbage collection or a busy machine

    broker.ensure()
    broker.publish(b"x").wait()
    up = longest()
    wire.cut()

    assert longest() < max(50 * up, 0.05)


@pytest.mark.usefixtures("impatient")
def test_a_broker_that_comes_back_with_nothing_is_filled_again(broker: Broker, kind: str) -> None:
    with new_emulator(kind) as first, Proxy(first.host_port) as wire:
        broker.point_to(wire.host_port)
        assert broker.publish(b"before").wait() == [None]
        first.stop()
        assert isinstance(broker.publish(b"during").wait()[0], BrokerUnavailable)

        with new_emulator(kind) as second:
            wire.target = second.host_port
            eventually(lambda: broker.publish(b"after").wait() == [None], "the new broker has the topics")

            assert broker.pull(1) == [b"after"]
            get_publisher().retire()


# ------------------------------------------------------------------------------------ the process around it


def test_changed_settings_make_a_new_publisher_and_the_old_one_ends(broker: Broker) -> None:
    broker.ensure()
    old, old_queue = get_publisher(), broker.queue
    outcomes = broker.publish(b"for the old one")

    broker.configure()
    new = get_publisher()

    assert new is not old
    assert get_publisher() is new
    assert outcomes.wait() == [None]
    assert broker.pull(1, old_queue.subscription) == [b"for the old one"]
    old._batches.join(SECONDS)
    assert old._sender is None


def run_script(broker: Broker, script: str) -> subprocess.CompletedProcess[str]:
    """Run `script` in a process with this broker's settings, a publisher, and `say` as an `on_done` that prints."""
    head = f"""
        import os, sys
        import django
        from django.conf import settings
        from i3tasks.types import I3TasksSettings
        settings.configure(
            I3TASKS=I3TasksSettings(namespace={broker.config.settings.namespace!r}, flush_seconds=10),
            PUBSUB_CONFIG={{"EMULATOR": True, "HOST": {broker.config.pubsub.host!r}, "PROJECT_ID": "test"}},
        )
        from i3tasks.broker.publisher import Outgoing, get_publisher
        def say(messages, error):
            text = "sent\\n" if error is None else f"failed {{error}}\\n"
            os.write(1, text.encode() * len(messages))
        def publish(data):
            return get_publisher().publish(Outgoing({broker.queue.topic!r}, data, {{}}, say))
    """
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(head) + textwrap.dedent(script)],
        env=child_environment(),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_an_exit_waits_for_what_is_queued(broker: Broker) -> None:
    broker.ensure()

    done = run_script(broker, "for n in range(50): publish(b'%d' % n)")

    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.count("sent") == 50
    assert sorted(broker.pull(50)) == sorted(b"%d" % n for n in range(50))


def test_an_exit_during_an_outage_is_bounded_and_clean(broker: Broker, wire: Proxy) -> None:
    wire.cut()

    done = run_script(broker, "publish(b'lost')")

    assert done.returncode == 0
    assert "Traceback" not in done.stderr


@pytest.mark.skipif(sys.platform == "win32", reason="no fork")
@pytest.mark.parametrize("moment", ["after the parent's publish", "during the parent's import"])
def test_a_forked_child_publishes_on_its_own(broker: Broker, moment: str) -> None:
    broker.ensure()
    wait = "get_publisher().flush(20)" if moment.startswith("after") else ""

    done = run_script(
        broker,
        f"""
        publish(b"parent")
        {wait}
        children = []
        for n in range(3):
            pid = os.fork()
            if pid == 0:
                publish(b"child %d" % n)
                os._exit(0 if get_publisher().flush(20) else 1)
            children.append(pid)
        assert [os.waitpid(pid, 0)[1] for pid in children] == [0, 0, 0]
        publish(b"parent again")
        """,
    )

    assert done.returncode == 0, done.stderr
    assert done.stdout.count("sent") == 5, done.stdout + done.stderr
    assert sorted(broker.pull(5)) == [b"child 0", b"child 1", b"child 2", b"parent", b"parent again"]


def test_importing_the_broker_leaves_googles_library_alone() -> None:
    script = """
        import sys
        import i3tasks.broker.publisher, i3tasks.broker.receiver, i3tasks.broker.provisioning
        assert not [name for name in sys.modules if name.split(".")[0] in ("google", "grpc")]
    """

    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)], capture_output=True, text=True, timeout=60, check=False
    )

    assert done.returncode == 0, done.stderr
