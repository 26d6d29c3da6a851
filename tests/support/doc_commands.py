"""The command lines that README and docs show, held against the parsers of the commands themselves."""

from __future__ import annotations

import argparse
import re
import shlex
from collections.abc import Callable, Iterator
from pathlib import Path

from django.core.management import get_commands, load_command_class

from i3tasks import cli
from i3tasks.emulator import command as emulator_command
from i3tasks.management import doctoring, initializing

PARSERS: dict[str, Callable[[], argparse.ArgumentParser]] = {
    "emulator": emulator_command._parser,
    "doctor": doctoring._parser,
    "init": initializing._parser,
}
"""Of the commands that are no management commands."""
BLOCK = re.compile(r"^ *```(?:sh|console)\n(.*?)^ *```", re.MULTILINE | re.DOTALL)
INLINE = re.compile(r"(?<!`)`((?:i3tasks|python manage\.py) [^`]+)`(?!`)")
ENDS = {"&", "|", "&&", ";", ">", "<", "||"}
PLACEHOLDER = re.compile(r"\$\{?\w+\}?|\b(?:[A-Z][A-Z_]+|N|F)\b|\.\.\.|…")


def command_lines(page: Path) -> Iterator[str]:
    """Each command of ours, or of manage.py, that the page shows."""
    text = page.read_text(encoding="utf-8")
    for block in BLOCK.findall(text):
        for line in block.replace("\\\n", " ").splitlines():
            yield from _ours(line.removeprefix("$ "))
    for inline in INLINE.findall(text):
        is_name = len(inline.split()) == 2 + inline.startswith("python")  # the command itself is meant
        yield from _ours(f"{inline} --help" if is_name else inline)


def _ours(line: str) -> Iterator[str]:
    found = re.search(r"(?:^|[\s(])((?:i3tasks|(?:python |\./)?manage\.py) .*)", line)
    if found and not line.lstrip().startswith("#"):
        yield found[1]


def problem(line: str) -> str:
    """Why the command would not take this line; "" if it would. Placeholders stand for themselves."""
    words = shlex.split(line, comments=True)
    words = words[: next((at for at, word in enumerate(words) if word in ENDS), len(words))]
    if words[0] == "python":
        words = words[1:]
    program, name, *arguments = words
    if name in ("--version", "--help", "COMMAND") or name.startswith(("(", "...")):
        return ""
    try:
        parser = _parser(program, name)
    except KeyError:
        return f"{program} has no command {name!r}"
    return _parsed(parser, arguments)


def _parser(program: str, name: str) -> argparse.ArgumentParser:
    """The command's own parser. Raises KeyError."""
    if program == "i3tasks":
        return PARSERS[name]() if name in PARSERS else _management(cli.COMMANDS[name][0])
    return _management(name)


def _management(name: str) -> argparse.ArgumentParser:
    return load_command_class(get_commands()[name], name).create_parser("manage.py", name)


def _parsed(parser: argparse.ArgumentParser, arguments: list[str]) -> str:
    if any(argument in ("--help", "-h") for argument in arguments):
        return ""
    numbers = [PLACEHOLDER.sub("1", argument) for argument in arguments if argument not in ("...", "…")]
    try:
        parser.parse_args(numbers)
    except SystemExit:
        return "its options are wrong"
    except Exception as error:  # Django's parser raises CommandError when it is called from code
        return str(error)
    return ""
