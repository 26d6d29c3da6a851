from __future__ import annotations

from django.db import models


class Census(models.Model):
    """One count of all the files of a library."""

    library = models.CharField(max_length=1000)
    started_at = models.DateTimeField(auto_now_add=True)

    def __str__(self) -> str:
        return f"census {self.pk} of {self.library}"


class SourceFile(models.Model):
    """A file of the library. The request creates the row, `collect` adds the text, and `measure` adds the figures."""

    census = models.ForeignKey(Census, models.CASCADE, related_name="files")
    path = models.CharField(max_length=500)
    text = models.TextField(null=True)

    measured_at = models.DateTimeField(null=True)
    problem = models.CharField(max_length=500, blank=True, default="")  # the parser's error
    seconds = models.FloatField(default=0)
    lines = models.IntegerField(default=0)
    functions = models.IntegerField(default=0)
    coroutines = models.IntegerField(default=0)
    classes = models.IntegerField(default=0)
    documented_module = models.BooleanField(default=False)
    documented_functions = models.IntegerField(default=0)
    documented_classes = models.IntegerField(default=0)

    class Meta:
        constraints = [models.UniqueConstraint(fields=["census", "path"], name="one_row_per_file")]

    def __str__(self) -> str:
        return self.path
