from django.db import models


class Order(models.Model):
    """Something for tasks to work on."""

    name = models.CharField(max_length=100, unique=True)
    total = models.DecimalField(max_digits=10, decimal_places=2, default=0)

    def __str__(self) -> str:
        return self.name


class Run(models.Model):
    """A body of `ledger` that began: what the tests of faults count, beside the rows of i3tasks itself."""

    name = models.CharField(max_length=100, db_index=True)
    try_id = models.BigIntegerField()
    process_id = models.IntegerField()

    def __str__(self) -> str:
        return f"{self.name} in process {self.process_id}"
