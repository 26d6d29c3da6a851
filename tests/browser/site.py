"""The site that the browser visits, as an ASGI application: with static files, and the strictest policy for content."""

import os

os.environ["DJANGO_SETTINGS_MODULE"] = "tests.browser.settings"

from django.contrib.staticfiles.handlers import ASGIStaticFilesHandler
from django.core.asgi import get_asgi_application

application = ASGIStaticFilesHandler(get_asgi_application())
