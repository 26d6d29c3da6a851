"""Provisioning, on both emulators: what is missing is made, what differs is updated, what fits is left alone."""

from __future__ import annotations

import dataclasses
import io
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from django.core.management import CommandError, call_command

from i3tasks.broker.errors import BrokerUnavailable
from i3tasks.broker.gcloud import dead_letter_grants
from i3tasks.broker.provisioning import Change, ensure, ensure_at_start
from i3tasks.broker.subscriptions import FieldChange, wanted_dead_letter
from i3tasks.conf import PubSubConfig
from i3tasks.types import PullQueue, PushQueue

if TYPE_CHECKING:
    from tests.broker.conftest import Broker, Events
    from tests.broker.proxy import Proxy

PUSHER = "push@test.iam.gserviceaccount.com"
PUSH = PushQueue("mail", "web", "http://127.0.0.1:1/i3/tasks-push/")


def found(broker: Broker, name: str) -> Any:
    """The subscription as Google's client shows it, in plain protobuf."""
    with broker.admin() as admin:
        answer = admin.subscriber.get_subscription(subscription=name)
        return type(answer).pb(answer)


def test_everything_is_made_as_the_settings_say(broker: Broker) -> None:
    broker.change(ack_deadline_seconds=42, other_queues=(PUSH,))

    changes = broker.ensure()

    assert {(change.kind, change.action) for change in changes} == {("topic", "create"), ("subscription", "create")}
    assert len(changes) == 8
    subscription = found(broker, broker.queue.subscription)
    assert subscription.topic == broker.queue.topic
    assert subscription.ack_deadline_seconds == 42
    assert subscription.push_config.push_endpoint == ""
    assert subscription.message_retention_duration.seconds == 7 * 86_400
    assert subscription.HasField("expiration_policy")
    assert subscription.expiration_policy.ttl.seconds == 0
    assert subscription.retry_policy.minimum_backoff.seconds == 10
    assert subscription.retry_policy.maximum_backoff.seconds == 600
    assert subscription.dead_letter_policy.dead_letter_topic == broker.queue.dead_letter_topic
    assert subscription.dead_letter_policy.max_delivery_attempts == 20
    assert found(broker, broker.queue.dead_letter_subscription).topic == broker.queue.dead_letter_topic
    assert found(broker, broker.config.queue("mail").subscription).push_config.push_endpoint == PUSH.push_endpoint


def test_what_fits_is_left_alone(broker: Broker) -> None:
    broker.change(other_queues=(PUSH,), retry_minimum_backoff_seconds=7)
    broker.ensure()

    assert broker.ensure() == []


def test_without_backoff_and_dead_letters(broker: Broker) -> None:
    broker.change(retry_minimum_backoff_seconds=None, retry_maximum_backoff_seconds=None, dead_letter=False)

    assert len(broker.ensure()) == 2

    subscription = found(broker, broker.queue.subscription)
    assert not subscription.HasField("retry_policy")
    assert not subscription.HasField("dead_letter_policy")
    assert broker.ensure() == []


CHANGES: list[tuple[dict[str, Any], str]] = [
    ({"ack_deadline_seconds": 30}, "ack_deadline_seconds: 10 -> 30"),
    ({"message_retention_seconds": 600}, "message_retention_seconds: 604800 -> 600"),
    ({"retry_maximum_backoff_seconds": 60}, "retry_backoff_seconds: 10/600 -> 10/60"),
    (
        {"retry_minimum_backoff_seconds": None, "retry_maximum_backoff_seconds": None},
        "retry_backoff_seconds: 10/600 -> none",
    ),
    ({"dead_letter": False}, "-> none"),
    ({"dead_letter_max_attempts": 7}, "/7"),
    (
        {"default_queue": PushQueue("default", "worker", "http://127.0.0.1:1/a")},
        "push_endpoint: none -> http://127.0.0.1:1/a",
    ),
]


@pytest.mark.parametrize(("changes", "text"), CHANGES)
def test_what_differs_is_updated_and_told_and_back_again(broker: Broker, changes: dict[str, Any], text: str) -> None:
    broker.ensure()
    before = broker.config

    [change] = [change for change in ensure(broker.change(**changes)) if change.name == broker.queue.subscription]

    assert change.action == "update"
    assert len(change.fields) == 1
    assert text in str(change)
    assert broker.ensure() == []
    assert [change.action for change in ensure(before) if change.name == broker.queue.subscription] == ["update"]
    assert ensure(before) == []


def test_a_new_endpoint_keeps_the_token_settings(broker: Broker) -> None:
    broker.change(default_queue=PushQueue("default", "web", "http://127.0.0.1:1/old"))
    broker.ensure()
    with broker.admin() as admin:
        admin.subscriber.update_subscription(
            request={
                "subscription": {
                    "name": broker.queue.subscription,
                    "push_config": {
                        "push_endpoint": "http://127.0.0.1:1/old",
                        "oidc_token": {"service_account_email": "push@test.iam.gserviceaccount.com", "audience": "us"},
                    },
                },
                "update_mask": {"paths": ["push_config"]},
            }
        )

    ensure(broker.change(default_queue=PushQueue("default", "web", "http://127.0.0.1:1/new")))

    push_config = found(broker, broker.queue.subscription).push_config
    assert push_config.push_endpoint == "http://127.0.0.1:1/new"
    assert push_config.oidc_token.audience == "us"


def test_pushes_are_signed_as_the_settings_say_and_a_change_is_mended(broker: Broker) -> None:
    queue = PushQueue("default", "web")
    broker.change(default_queue=queue, endpoint="http://127.0.0.1:1/i3", service_account=PUSHER)
    broker.ensure()

    token = found(broker, broker.queue.subscription).push_config.oidc_token
    assert (token.service_account_email, token.audience) == (PUSHER, "http://127.0.0.1:1/i3/tasks-push/")
    assert broker.ensure() == []

    [change] = ensure(broker.change(default_queue=dataclasses.replace(queue, audience="shop")))
    assert str(change).endswith(f"push_token: {PUSHER}/http://127.0.0.1:1/i3/tasks-push/ -> {PUSHER}/shop")
    push_config = found(broker, broker.queue.subscription).push_config
    assert push_config.oidc_token.audience == "shop"
    assert push_config.push_endpoint == "http://127.0.0.1:1/i3/tasks-push/"
    assert broker.ensure() == []


def test_pushes_that_were_not_signed_are(broker: Broker) -> None:
    broker.change(default_queue=PushQueue("default", "web", "http://127.0.0.1:1/a"))
    broker.ensure()

    [change] = ensure(broker.change(service_account=PUSHER))

    assert str(change).endswith(f"push_token: none -> {PUSHER}/http://127.0.0.1:1/a")
    assert found(broker, broker.queue.subscription).push_config.oidc_token.service_account_email == PUSHER
    assert broker.ensure() == []
    [back] = ensure(broker.change(default_queue=PullQueue("default", "web")))
    assert [field.name for field in back.fields] == ["push_endpoint"]
    assert broker.ensure() == []


def test_a_subscription_whose_topic_was_deleted_is_made_anew(broker: Broker) -> None:
    broker.ensure()
    with broker.admin() as admin:
        admin.publisher.delete_topic(topic=broker.queue.topic)

    changes = broker.ensure()

    assert [(change.name, change.action) for change in changes] == [
        (broker.queue.topic, "create"),
        (broker.queue.subscription, "recreate"),
    ]
    assert found(broker, broker.queue.subscription).topic == broker.queue.topic
    assert broker.ensure() == []


def test_what_pubsub_cannot_change_is_said_and_left(broker: Broker) -> None:
    broker.ensure()
    with broker.admin() as admin:
        admin.publisher.create_topic(name=broker.queue.topic + ".other")
        admin.subscriber.delete_subscription(subscription=broker.queue.subscription)
        admin.subscriber.create_subscription(
            request={"name": broker.queue.subscription, "topic": broker.queue.topic + ".other"}
        )

    [change] = broker.ensure()

    assert change.action == "impossible"
    assert "gcloud pubsub subscriptions delete" in str(change)
    assert found(broker, broker.queue.subscription).topic == broker.queue.topic + ".other"


def test_a_dry_run_tells_and_does_nothing(broker: Broker) -> None:
    would = ensure(broker.config, dry_run=True)
    assert broker.ensure() == would

    changed = broker.change(ack_deadline_seconds=30)
    would = ensure(changed, dry_run=True)
    assert would != []
    assert found(broker, broker.queue.subscription).ack_deadline_seconds == 10
    assert broker.ensure() == would


def test_several_processes_at_once_are_fine(broker: Broker) -> None:
    broker.change(other_queues=(PUSH, PullQueue("heavy", "worker")))

    with ThreadPoolExecutor(8) as threads:
        list(threads.map(lambda _: broker.ensure(), range(8)))

    assert broker.ensure() == []


@pytest.mark.usefixtures("impatient")
def test_a_broker_that_is_away_is_an_error_that_says_so(broker: Broker, wire: Proxy) -> None:
    wire.cut()

    with pytest.raises(BrokerUnavailable, match="i3tasks emulator"):
        broker.ensure()


# ------------------------------------------------------------------------------------------------- at start


def test_at_start_it_is_done_once_and_again_once_a_minute(broker: Broker, events: Events) -> None:
    config = broker.config

    assert ensure_at_start(config)
    assert not ensure_at_start(config)
    assert ensure_at_start(config, again=True)
    assert not ensure_at_start(config, again=True)
    assert len(events.named("provisioned")) == 4


def test_at_start_it_is_left_out_if_the_settings_say_so(broker: Broker) -> None:
    config = broker.change(run_queue_create_command_on_startup=False)

    assert not ensure_at_start(config)
    assert not ensure_at_start(config, again=True)
    assert len(ensure(config, dry_run=True)) == 4


@pytest.mark.usefixtures("impatient")
def test_at_start_a_broker_that_is_away_is_asked_again(broker: Broker, wire: Proxy) -> None:
    config = broker.config
    wire.cut()
    with pytest.raises(BrokerUnavailable):
        ensure_at_start(config)

    wire.heal()

    assert ensure_at_start(config)


# -------------------------------------------------------------------------------------------------- command


def run_command(*arguments: str) -> str:
    output = io.StringIO()
    call_command("i3tasks_ensure_pubsub", *arguments, stdout=output)
    return output.getvalue()


def test_the_command_tells_each_change_and_their_number(broker: Broker) -> None:
    would = run_command("--dry-run").splitlines()
    done = run_command().splitlines()

    assert would == [*(f"[dry-run] {line}" for line in done[:-1]), "[dry-run] 4 changes would be made."]
    assert f"create topic {broker.queue.topic}" in done
    assert done[-1] == "4 changes made."
    assert run_command() == "0 changes made.\n"


@pytest.mark.usefixtures("impatient")
def test_the_command_fails_in_a_sentence(broker: Broker, wire: Proxy) -> None:
    wire.cut()

    with pytest.raises(CommandError, match="gave no answer"):
        run_command()


def test_the_command_fails_for_what_cannot_be_changed(broker: Broker, monkeypatch: pytest.MonkeyPatch) -> None:
    change = Change("subscription", "projects/p/subscriptions/s", "impossible", (FieldChange("filter", "x", ""),))
    monkeypatch.setattr("i3tasks.management.commands.i3tasks_ensure_pubsub.ensure", lambda *_, **__: [change])

    with pytest.raises(CommandError, match="can't be changed"):
        run_command()


def test_grants_are_for_the_real_service_only(broker: Broker) -> None:
    config = broker.config
    real = replace(config, pubsub=PubSubConfig(False, None, "shop-1", None))

    assert dead_letter_grants(config) == []
    number, publisher, subscriber = dead_letter_grants(real)
    assert "gcloud projects describe shop-1" in number
    namespace = config.settings.namespace
    assert f"topics add-iam-policy-binding {namespace}.default.worker.dead-letter " in publisher
    assert "--role=roles/pubsub.publisher" in publisher
    assert f"subscriptions add-iam-policy-binding {namespace}.default.worker " in subscriber
    assert "--role=roles/pubsub.subscriber" in subscriber


def test_dead_letters_are_kept_as_long_as_pubsub_does(broker: Broker) -> None:
    real = replace(broker.config, pubsub=PubSubConfig(False, None, "shop-1", None))

    assert wanted_dead_letter(real, broker.queue).message_retention_seconds == 31 * 86_400
