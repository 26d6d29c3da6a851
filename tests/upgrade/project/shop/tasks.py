from pathlib import Path

from django_i3tasks.utils import TaskDecorator


@TaskDecorator
def add(x, y):
    return x + y


@TaskDecorator(max_retries=2)
def flaky(path):
    if not Path(path).exists():
        Path(path).touch()
        raise ValueError("the first time")
    return "the second time"


@TaskDecorator
def report(text):
    return text
