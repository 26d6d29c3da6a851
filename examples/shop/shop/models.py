"""What the shop keeps."""

from django.db import models


class Order(models.Model):
    """An order. Its receipt is sent by a task."""

    email = models.EmailField()
    receipt_sent_at = models.DateTimeField(null=True)
