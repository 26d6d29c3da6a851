"""The test project as an ASGI application, as Django serves it, and with pushes answered in front of Django."""

from django.core.asgi import get_asgi_application

from i3tasks.views.asgi import with_push

application = get_asgi_application()
with_push_in_front = with_push(application)
