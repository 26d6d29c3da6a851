from django.db import models


class Order(models.Model):
    """Something for tasks to work on."""

    name = models.CharField(max_length=100, unique=True)
    total = models.DecimalField(max_digits=10, decimal_places=2, default=0)

    def __str__(self) -> str:
        return self.name
