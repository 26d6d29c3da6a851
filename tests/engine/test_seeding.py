"""`i3tasks emulator --seed settings`: the project's queues are there before any process provisions them."""

import re

import grpc
import pytest
from google.pubsub_v1 import SubscriberClient
from google.pubsub_v1.services.subscriber.transports import SubscriberGrpcTransport

from i3tasks.conf import get_config
from tests.process_settings import BY_HAND
from tests.support.children import COMMAND, Children

pytestmark = pytest.mark.django_db(transaction=True)


def test_the_projects_queues_are_there() -> None:
    with Children({}).all_ended() as children:
        emulator = children.start(
            COMMAND, "emulator", "--host-port", "127.0.0.1:0", "--in-memory", "--seed", "settings"
        )
        address = re.sub(".*=", "", emulator.says(r"PUBSUB_EMULATOR_HOST=[\d.:]+"))
        transport = SubscriberGrpcTransport(channel=grpc.insecure_channel(address))
        with SubscriberClient(transport=transport) as client:
            found = {
                item.name: item.push_config.push_endpoint
                for item in client.list_subscriptions(project=f"projects/{get_config().pubsub.project_id}")
            }
    by_hand = get_config().queue("push").subscription.replace("push.push", f"{BY_HAND.queue_name}.web")
    assert set(found) == {by_hand, *(names.subscription for names in get_config().queues.values())}
    assert found[get_config().queue("push").subscription] == "http://127.0.0.1:1/i3/tasks-push/"
