"""A worker's own port for Prometheus: it has no web server."""

from __future__ import annotations

import hmac
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from django.db import close_old_connections, connections

from .counters import count_events
from .rendering import rendered

SECONDS = 10.0
"""How long a client may take to send its request."""


def serve(host: str, port: int, token: str | None) -> ThreadingHTTPServer:
    """Answer GET requests in threads of their own, until `shutdown`. Raises OSError if the port is taken.

    With a token, a request must bring it: `Authorization: Bearer <token>`.
    """
    count_events()

    class Handler(_Handler):
        expected = None if token is None else f"Bearer {token}".encode()

    server = _Server((host, port), Handler)
    threading.Thread(target=server.serve_forever, name="i3tasks-metrics", daemon=True).start()
    return server


class _Server(ThreadingHTTPServer):
    daemon_threads = True


class _Handler(BaseHTTPRequestHandler):
    expected: bytes | None = None
    timeout = SECONDS

    def do_GET(self) -> None:
        given = self.headers.get("Authorization", "").encode()
        if self.expected is not None and not hmac.compare_digest(given, self.expected):
            self._answer(401, b"The token is missing or wrong.\\n", "text/plain; charset=utf-8")
            return
        close_old_connections()
        try:
            body, content_type = rendered(self.headers.get("Accept", ""))
        finally:
            connections.close_all()  # the thread ends with the request
        self._answer(200, body, content_type)

    def _answer(self, status: int, body: bytes, content_type: str) -> None:
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Scrapes are no events."""
