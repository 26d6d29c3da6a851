"""The command line of `python -m i3tasks.emulator`, which `i3tasks emulator` uses too."""

from __future__ import annotations

import argparse
import asyncio
import ipaddress
import logging
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ..exceptions import I3TasksError

if TYPE_CHECKING:
    from .service import Options, Ready

DEFAULT_HOST_PORT = "127.0.0.1:8085"
DEFAULT_DATA_DIR = ".i3tasks-emulator"
READY = "Ready. Set PUBSUB_EMULATOR_HOST="


def main(argv: Sequence[str] | None = None) -> int:
    """Run the emulator until SIGTERM or Ctrl-C. Returns the exit code: 0, or 1 with a sentence on stderr."""
    arguments = _parser().parse_args(argv)
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s")
    try:
        asyncio.run(_run(arguments))
    except I3TasksError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


async def _run(arguments: argparse.Namespace) -> None:
    from .service import Emulator  # imported late, so that --help and wrong options are answered at once

    options = _options(arguments)
    if not is_loopback(options.host):
        print(f"Listening on {options.host}: anyone who reaches this address can read and publish.", file=sys.stderr)
    await Emulator(options).run(_announce)


def _announce(ready: Ready) -> None:
    print(f"{READY}{ready.host_port} (push tokens' certificates: {ready.certificates_url})", flush=True)


def _options(arguments: argparse.Namespace) -> Options:
    from .seed import Seed
    from .service import Options

    host, port = arguments.host_port
    return Options(
        host=host,
        port=port,
        data_dir=None if arguments.in_memory else arguments.data_dir,
        seed=Seed.read(arguments.seed) if arguments.seed else None,
        exit_with_parent=arguments.exit_with_parent,
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="i3tasks emulator", description="A local Pub/Sub for development and tests. Keeps its messages in SQLite."
    )
    parser.add_argument(
        "--host-port",
        type=_host_port,
        default=DEFAULT_HOST_PORT,
        metavar="HOST:PORT",
        help=f"where to listen; port 0 takes a free one (default: {DEFAULT_HOST_PORT})",
    )
    kept = parser.add_mutually_exclusive_group()
    kept.add_argument(
        "--data-dir",
        type=Path,
        default=Path(DEFAULT_DATA_DIR),
        metavar="DIR",
        help=f"where to keep topics, subscriptions and messages (default: {DEFAULT_DATA_DIR})",
    )
    kept.add_argument("--in-memory", action="store_true", help="keep nothing after the emulator stops")
    parser.add_argument(
        "--seed", type=Path, metavar="FILE", help="create the topics and subscriptions in this TOML file"
    )
    parser.add_argument("--exit-with-parent", action="store_true", help="stop when stdin is closed")
    return parser


def _host_port(text: str) -> tuple[str, int]:
    host, _, port = text.rpartition(":")
    if not host or not port.isascii() or not port.isdigit() or int(port) > 65_535:
        raise argparse.ArgumentTypeError(f"{text!r} is not HOST:PORT")
    return host.strip("[]"), int(port)


def is_loopback(host: str) -> bool:
    """Tell whether the host is this machine and can be reached from this machine only."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
