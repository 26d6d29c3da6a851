"""A minimal HTTP/1.1 client for pushes: POSTs a body, reads the status code, and keeps connections open if it can."""

from __future__ import annotations

import asyncio
import ssl
from collections import defaultdict
from collections.abc import Mapping
from typing import NamedTuple
from urllib.parse import urlsplit

MAX_HEADERS_BYTES = 64 * 1_024
MAX_KEPT_BODY = 64 * 1_024
MAX_IDLE = 64

_Connection = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class ServerAddress(NamedTuple):
    """The server that a connection goes to."""

    scheme: str
    host: str
    port: int


class HttpError(Exception):
    """The endpoint gave no readable HTTP answer."""


class HttpClient:
    """Sends POST requests over connections that are kept per origin."""

    def __init__(self) -> None:
        self._idle: defaultdict[ServerAddress, list[_Connection]] = defaultdict(list)
        self._tls: ssl.SSLContext | None = None

    async def post(self, url: str, headers: Mapping[str, str], body: bytes) -> int:
        """POST `body` and return the status code of the answer. Raises OSError or HttpError if there is none."""
        origin, request = _request(url, headers, body)
        while self._idle[origin]:
            connection = self._idle[origin].pop()
            try:
                return await self._exchange(origin, connection, request)
            except (OSError, HttpError):  # probably closed while idle: send the request again on another connection
                continue
        return await self._exchange(origin, await self._connect(origin), request)

    def close(self) -> None:
        """Close the idle connections."""
        for connections in self._idle.values():
            for _, writer in connections:
                writer.close()
        self._idle.clear()

    async def _connect(self, origin: ServerAddress) -> _Connection:
        if origin.scheme == "https" and self._tls is None:
            self._tls = ssl.create_default_context()
        tls = self._tls if origin.scheme == "https" else None
        return await asyncio.open_connection(origin.host, origin.port, ssl=tls, limit=MAX_HEADERS_BYTES)

    async def _exchange(self, origin: ServerAddress, connection: _Connection, request: bytes) -> int:
        reader, writer = connection
        reusable = False
        try:
            writer.write(request)
            await writer.drain()
            status, headers = await _read_head(reader)
            reusable = await _skip_body(reader, status, headers)
        finally:
            if reusable and len(self._idle[origin]) < MAX_IDLE:
                self._idle[origin].append(connection)
            else:
                writer.close()
        return status


def _request(url: str, headers: Mapping[str, str], body: bytes) -> tuple[ServerAddress, bytes]:
    parts = urlsplit(url)
    port = parts.port or (443 if parts.scheme == "https" else 80)
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    lines = [f"POST {target} HTTP/1.1", f"Host: {parts.netloc.rpartition('@')[2]}"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    lines += [f"Content-Length: {len(body)}", "", ""]
    head = "\r\n".join(lines).encode("latin-1", "replace")
    return ServerAddress(parts.scheme, parts.hostname or "", port), head + body


async def _read_head(reader: asyncio.StreamReader) -> tuple[int, dict[str, str]]:
    """Read the status and headers of the answer. Informational answers before it are skipped, except 102."""
    while True:
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        except (asyncio.IncompleteReadError, asyncio.LimitOverrunError) as error:
            raise HttpError("The endpoint closed the connection, or sent no HTTP.") from error
        first, *lines = head.split("\r\n")
        version, _, rest = first.partition(" ")
        if not version.startswith("HTTP/1.") or not (rest[:3].isascii() and rest[:3].isdigit()):
            raise HttpError("The endpoint sent no HTTP/1 answer.")
        status = int(rest[:3])
        if status == 102 or status >= 200:
            headers = (line.partition(":") for line in lines if line)
            return status, {name.strip().lower(): value.strip() for name, _, value in headers}


async def _skip_body(reader: asyncio.StreamReader, status: int, headers: Mapping[str, str]) -> bool:
    """Read past the body if the connection can be used again afterwards. Returns whether it can."""
    if status == 102 or headers.get("connection", "").lower() == "close" or "transfer-encoding" in headers:
        return False
    length = "0" if status in (204, 304) else headers.get("content-length", "")
    if not (length.isascii() and length.isdigit() and len(length) < 10) or int(length) > MAX_KEPT_BODY:
        return False
    try:
        await reader.readexactly(int(length))
    except asyncio.IncompleteReadError:
        return False
    return True
