"""The emulator's state: topics, subscriptions and all changes to them, which are on disk before they are confirmed."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

from . import configs, wire
from .backlog import Backlog, Changes
from .messages import Message
from .names import DELETED_TOPIC, last_part, project_of
from .status_errors import already_exists, not_found
from .storage import Journal, Kept, WriteBatch
from .subscription import Committed, Subscription


class Topic:
    """A topic: its subscriptions, and the messages that it keeps for them to seek to."""

    def __init__(self, config: wire.Message) -> None:
        self.config = config
        self.subscriptions: dict[str, Subscription] = {}
        self.kept: deque[Message] = deque()

    @property
    def name(self) -> str:
        """The full name, `projects/P/topics/T`."""
        return str(self.config.name)

    @property
    def retention(self) -> float:
        """Seconds for which published messages are kept; 0 if they are not."""
        return configs.topic_retention(self.config)

    def prune(self, now: float) -> None:
        """Drop messages that are older than the retention."""
        while self.kept and self.kept[0].published_at + self.retention <= now:
            self.kept.popleft()


class _Posting(NamedTuple):
    """A message that goes into the backlogs once it is on disk."""

    message: Message
    topic: Topic
    receivers: list[Subscription]

    def arrive(self) -> None:
        if self.topic.retention:
            self.topic.kept.append(self.message)
        for receiver in self.receivers:
            receiver.add(self.message)


class BrokerState:
    """Topics and subscriptions by name.

    `on_push_change` is called for every subscription whose push loop may have to start, change or stop. `certificates`
    gives the certificates that check the tokens of pushes: key id -> PEM.
    """

    def __init__(
        self,
        journal: Journal,
        clock: Callable[[], float],
        on_push_change: Callable[[Subscription], None] = lambda _: None,
    ) -> None:
        self.topics: dict[str, Topic] = {}
        self.subscriptions: dict[str, Subscription] = {}
        self.journal = journal
        self.clock = clock
        self.secrets: dict[str, bytes] = {}
        self.on_push_change = on_push_change
        self.certificates: Callable[[], dict[str, str]] = dict
        self._last_number = 0

    def _next_number(self) -> int:
        """Give the next id of a message, subscription or lease: above all earlier ids, also those of earlier runs."""
        self._last_number = max(self._last_number + 1, int(self.clock() * 1_000_000))
        return self._last_number

    # -- restart

    def load(self) -> None:
        """Read the data of the last run. Deliveries that were outstanding at its end are due again."""
        kept = self.journal.load()
        numbers = [number for number, *_ in kept.subscriptions] + [message.id for message, *_ in kept.messages]
        self._last_number = max(numbers, default=0)
        self.secrets = kept.secrets
        for _, config in kept.topics:
            topic = Topic(wire.Topic.FromString(config))
            self.topics[topic.name] = topic
        for number, _, config, active_at in kept.subscriptions:
            self._revived(number, wire.Subscription.FromString(config)).active_at = active_at
        self._load_messages(kept)
        for subscription in self.subscriptions.values():
            self.on_push_change(subscription)

    def _load_messages(self, kept: Kept) -> None:
        for message, topic, kept_until in kept.messages:
            if kept_until and topic in self.topics:
                self.topics[topic].kept.append(message)
        backlogs = {subscription.number: subscription.backlog for subscription in self.subscriptions.values()}
        messages = {message.id: message for message, *_ in kept.messages}
        for message_id, number, failures, acked in kept.deliveries:
            if acked:
                backlogs[number].restore_acked(messages[message_id])
            else:
                backlogs[number].add(messages[message_id], failures=failures)

    def _revived(self, number: int, config: wire.Message) -> Subscription:
        rules = configs.rules(config, dead_letters=self._takes_dead_letters(config))
        backlog = Backlog(rules, first_lease=self._next_number())
        subscription = Subscription(number, config, backlog, self.clock, self._commit)
        self.subscriptions[subscription.name] = subscription
        if config.topic in self.topics and not config.detached:
            self.topics[config.topic].subscriptions[subscription.name] = subscription
        return subscription

    # -- topics

    def topic(self, name: str) -> Topic:
        """Find the topic of this name. Raises StatusError if there is none."""
        topic = self.topics.get(name)
        if topic is None:
            raise not_found(f"Topic not found (resource={last_part(name)[:300]}).")
        return topic

    def create_topic(self, request: wire.Message) -> tuple[Topic, Committed]:
        """Create a topic."""
        topic = Topic(configs.new_topic(request))
        if topic.name in self.topics:
            raise already_exists(f"Topic already exists (resource={last_part(topic.name)}).")
        self.topics[topic.name] = topic
        self._dead_letters_changed(topic.name)
        return topic, self._save_topic(topic)

    def update_topic(self, request: wire.Message) -> tuple[Topic, Committed]:
        """Change the fields that the request's mask names."""
        topic = self.topic(request.topic.name)
        topic.config = configs.updated_topic(topic.config, request)
        topic.prune(self.clock())
        return topic, self._save_topic(topic)

    def _save_topic(self, topic: Topic) -> Committed:
        batch = WriteBatch()
        batch.save_topic(topic.name, topic.config.SerializeToString())
        batch.keep_messages(topic.name, topic.retention)
        return self.journal.write(batch)

    def delete_topic(self, name: str) -> Committed:
        """Delete the topic. Its subscriptions keep their backlogs and show `_deleted-topic_` as their topic."""
        topic = self.topic(name)
        del self.topics[name]
        batch = WriteBatch()
        for subscription in topic.subscriptions.values():
            subscription.config.topic = DELETED_TOPIC
            self._save_subscription(subscription, batch)
        batch.delete_topic(name)
        self._dead_letters_changed(name)
        return self.journal.write(batch)

    # -- subscriptions

    def subscription(self, name: str) -> Subscription:
        """Find the subscription of this name. Raises StatusError if there is none."""
        subscription = self.subscriptions.get(name)
        if subscription is None:
            raise not_found(f"Subscription does not exist (resource={last_part(name)[:300]}).")
        return subscription

    def create_subscription(self, request: wire.Message) -> tuple[Subscription, Committed]:
        """Create a subscription. It gets the messages that are published from now on."""
        config = configs.new_subscription(request)
        if config.name in self.subscriptions:
            raise already_exists(f"Subscription already exists (resource={last_part(config.name)}).")
        self.topic(config.topic)
        self._check_dead_letter_topic(config)
        subscription = self._revived(self._next_number(), config)
        self.on_push_change(subscription)
        return subscription, self._write_subscription(subscription)

    def reconfigure(self, subscription: Subscription, config: wire.Message) -> Committed:
        """Give the subscription a new configuration."""
        self._check_dead_letter_topic(config)
        rules = configs.rules(config, dead_letters=self._takes_dead_letters(config))
        subscription.reconfigure(config, rules)
        self.on_push_change(subscription)
        return self._write_subscription(subscription)

    def detach(self, subscription: Subscription) -> Committed:
        """Cut the subscription off from its topic and drop its backlog, for good."""
        config = wire.Subscription()
        config.CopyFrom(subscription.config)
        config.detached = True
        topic = self.topics.get(config.topic)
        if topic is not None:
            topic.subscriptions.pop(subscription.name, None)
        return self.reconfigure(subscription, config)

    def delete_subscription(self, name: str) -> Committed:
        """Delete the subscription and its backlog."""
        subscription = self.subscription(name)
        del self.subscriptions[name]
        topic = self.topics.get(subscription.config.topic)
        if topic is not None:
            topic.subscriptions.pop(name, None)
        subscription.delete()
        self.on_push_change(subscription)
        batch = WriteBatch()
        batch.delete_subscription(subscription.number)
        return self.journal.write(batch)

    def seek(self, subscription: Subscription, instant: float) -> Committed:
        """Mark messages published before `instant` as acked, and retained later ones as not acked."""
        topic = self.topics.get(subscription.config.topic)
        kept = [message for message in topic.kept if _accepts(subscription, message)] if topic else []
        return subscription.seek(instant, kept)

    def _write_subscription(self, subscription: Subscription) -> Committed:
        batch = WriteBatch()
        self._save_subscription(subscription, batch)
        return self.journal.write(batch)

    def _save_subscription(self, subscription: Subscription, batch: WriteBatch) -> None:
        config = subscription.config.SerializeToString()
        batch.save_subscription(subscription.number, subscription.name, config, subscription.active_at)

    # -- messages

    def publish(self, topic: Topic, messages: Sequence[wire.Message]) -> tuple[list[int], Committed]:
        """Publish the messages. They reach the backlogs once they are on disk, in the order of publishing."""
        batch = WriteBatch()
        postings = [self._post(topic, message, batch) for message in messages]
        return [posting.message.id for posting in postings], self._deliver_when_written(postings, batch)

    def _post(self, topic: Topic, message: wire.Message, batch: WriteBatch) -> _Posting:
        number, now = self._next_number(), self.clock()
        message.message_id = str(number)
        message.publish_time.seconds, message.publish_time.nanos = int(now), int(now % 1 * 1e6) * 1000
        receivers = _receivers(topic, message)
        stored = Message(number, now, message.SerializeToString(), message.ordering_key)
        if receivers or topic.retention:
            kept_until = now + topic.retention if topic.retention else 0
            batch.add_message(stored, topic.name, kept_until, [receiver.number for receiver in receivers])
        return _Posting(stored, topic, receivers)

    def _deliver_when_written(self, postings: list[_Posting], batch: WriteBatch) -> Committed:
        if not batch:
            return None
        committed = self.journal.write(batch)
        # A callback does this rather than the caller, so that messages are published even if the caller is cancelled.
        committed.add_done_callback(lambda done: _arrive(done, postings))
        return committed

    def _commit(self, subscription: Subscription, changes: Changes) -> Committed:
        batch, number = WriteBatch(), subscription.number
        batch.revive(number, changes.revived)
        batch.retain(number, changes.retained)
        if subscription.counts_attempts:
            batch.count_failures(number, changes.failures.items())
        batch.settle(number, changes.settled)
        postings = [self._bury(subscription, *exhausted, batch) for exhausted in changes.exhausted]
        return self._deliver_when_written(postings, batch)

    # -- dead letters

    def _bury(self, subscription: Subscription, message: Message, attempts: int, batch: WriteBatch) -> _Posting:
        """Publish the message to the dead-letter topic, in the transaction that settles it in this subscription."""
        letter = wire.PubsubMessage.FromString(message.payload)
        prefix = "CloudPubSubDeadLetterSource"
        letter.attributes[f"{prefix}DeliveryCount"] = str(attempts)
        letter.attributes[f"{prefix}Subscription"] = last_part(subscription.name)
        letter.attributes[f"{prefix}SubscriptionProject"] = project_of(subscription.name)
        letter.attributes[f"{prefix}TopicPublishTime"] = letter.publish_time.ToJsonString()
        topic = self.topics[subscription.config.dead_letter_policy.dead_letter_topic]
        return self._post(topic, letter, batch)

    def _takes_dead_letters(self, config: wire.Message) -> bool:
        return config.HasField("dead_letter_policy") and config.dead_letter_policy.dead_letter_topic in self.topics

    def _check_dead_letter_topic(self, config: wire.Message) -> None:
        if config.HasField("dead_letter_policy"):
            self.topic(config.dead_letter_policy.dead_letter_topic)

    def _dead_letters_changed(self, topic: str) -> None:
        """Apply that a dead-letter topic was created or deleted. Without it, failed messages are still delivered."""
        for subscription in self.subscriptions.values():
            if subscription.config.dead_letter_policy.dead_letter_topic == topic:
                rules = configs.rules(subscription.config, dead_letters=topic in self.topics)
                subscription.reconfigure(subscription.config, rules)

    # -- time passes

    def sweep(self) -> None:
        """Apply retention and expiration. Called every SWEEP_SECONDS."""
        now = self.clock()
        batch = WriteBatch()
        for topic in self.topics.values():
            topic.prune(now)
        for subscription in list(self.subscriptions.values()):
            if subscription.has_expired(now):
                self.delete_subscription(subscription.name)
            else:
                subscription.prune()
                self._save_subscription(subscription, batch)
        batch.sweep(now)
        self.journal.write(batch)


def _receivers(topic: Topic, message: wire.Message) -> list[Subscription]:
    return [
        subscription
        for subscription in topic.subscriptions.values()
        if not subscription.config.filter or subscription.accepts(message.attributes)
    ]


def _accepts(subscription: Subscription, message: Message) -> bool:
    if not subscription.config.filter:
        return True
    return subscription.accepts(wire.PubsubMessage.FromString(message.payload).attributes)


def _arrive(committed: asyncio.Future[None], postings: Iterable[_Posting]) -> None:
    if committed.cancelled() or committed.exception() is not None:
        return
    receivers = {}
    for posting in postings:
        posting.arrive()
        receivers.update({receiver.name: receiver for receiver in posting.receivers})
    for receiver in receivers.values():
        receiver.flush()
