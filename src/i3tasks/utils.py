"""Names that django-i3tasks documents here."""

from .calls.decorators import TaskDecorator

__all__ = ["TaskDecorator"]
