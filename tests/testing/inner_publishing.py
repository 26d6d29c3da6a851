"""Run by test_styles.py with either value of `i3tasks_publish`."""

from i3tasks.broker.publisher import Publisher, get_publisher


def test_the_publisher_is_the_real_one() -> None:
    assert type(get_publisher()) is Publisher
