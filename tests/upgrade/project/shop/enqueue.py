"""A round of calls of every kind, as the README of django-i3tasks has them."""

import sys
from uuid import uuid4

import django

django.setup()

from django_i3tasks.models import TaskGroup  # noqa: E402

from shop.tasks import add, flaky, report  # noqa: E402

for number in range(5):
    add.delay(number, 1)
add.delay(1, 2).then(report, "the end of a chain")
group = TaskGroup.create(report, total_count=2, args=["the callback of a group"])
for number in (1, 2):
    add.delay(number, number, __i3group__=group)
flaky.delay(f"{sys.argv[1]}/{uuid4().hex}")
