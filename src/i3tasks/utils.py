"""Names that django-i3tasks documents here."""

from .definition import TaskDecorator

__all__ = ["TaskDecorator"]
