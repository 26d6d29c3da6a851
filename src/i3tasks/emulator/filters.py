r"""The filter language of subscriptions, as a predicate over a message's attributes.

    expression = term, { "AND", term } | term, { "OR", term } ;
    term       = [ "NOT" | "-" ], ( "(", expression, ")" | comparison ) ;
    comparison = "attributes", ":", key
               | "attributes", ".", key, ( "=" | "!=" ), string
               | "hasPrefix", "(", "attributes", ".", key, ",", string, ")" ;
    key        = bare word of letters, digits, "-" and "_", or string ;

Operators are upper case. AND and OR can't be mixed without parentheses, because Pub/Sub documents no precedence.
`attributes.k != "v"` also matches messages without `k`. A string is in double quotes, with the escapes \\ \" \n \t
\xHH \ooo \uHHHH \UHHHHHHHH.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping

from .status_errors import StatusError, invalid

Attributes = Mapping[str, str]
Predicate = Callable[[Attributes], bool]

MAX_BYTES = 256

_TOKEN = re.compile(
    r'\s*(?:(?P<string>"(?:[^"\\]|\\.)*")|(?P<word>[A-Za-z0-9_][A-Za-z0-9_-]*)|(?P<mark>!=|[-:.=(),]))', re.DOTALL
)
_ESCAPE = re.compile(r"\\(?:x([0-9A-Fa-f]{2})|u([0-9A-Fa-f]{4})|U([0-9A-Fa-f]{8})|([0-7]{3})|(.))", re.DOTALL)
_PLAIN_ESCAPES = {"n": "\n", "t": "\t", "r": "\r", "a": "\a", "b": "\b", "f": "\f", "v": "\v"} | {
    character: character for character in "\\\"'?`"
}


def everything(_: Attributes) -> bool:
    """The empty filter, which every message passes."""
    return True


def parse(text: str) -> Predicate:
    """Make the predicate that `text` describes. Raises a StatusError that says where the text is wrong."""
    if len(text.encode()) > MAX_BYTES:
        raise invalid(f"Invalid filter: it has more than {MAX_BYTES} bytes.")
    if not text.strip():
        return everything
    return _Parser(text).whole()


def _tokens(text: str) -> Iterator[tuple[str, str, int]]:
    position, end = 0, len(text.rstrip())
    while position < end:
        match = _TOKEN.match(text, position)
        if match is None:
            raise invalid(f"Invalid filter: it can't be read from character {position} on: {text[position:]!r}.")
        kind = match.lastgroup or ""
        yield kind, match[kind], match.start(kind)
        position = match.end()


class _Parser:
    """Recursive descent over the tokens. The 256-byte limit bounds the recursion."""

    def __init__(self, text: str) -> None:
        self._tokens = list(_tokens(text))
        self._next = 0

    def whole(self) -> Predicate:
        predicate = self._expression()
        if self._next < len(self._tokens):
            raise self._unexpected("AND, OR, or the end")
        return predicate

    def _expression(self) -> Predicate:
        terms = [self._term()]
        joint = self._peek() if self._peek() in ("AND", "OR") else None
        while joint is not None and self._accept(joint):
            terms.append(self._term())
        if self._peek() in ("AND", "OR"):
            raise self._unexpected("parentheses around one of the two, where AND and OR are mixed")
        return terms[0] if joint is None else _joined(joint, terms)

    def _term(self) -> Predicate:
        if self._accept("NOT") or self._accept("-"):
            inner = self._term()
            return lambda attributes: not inner(attributes)
        if self._accept("("):
            predicate = self._expression()
            self._expect(")")
            return predicate
        if self._accept("hasPrefix"):
            return self._prefix()
        self._expect("attributes")
        return self._comparison()

    def _comparison(self) -> Predicate:
        if self._accept(":"):
            key = self._key()
            return lambda attributes: key in attributes
        self._expect(".")
        key = self._key()
        negated = self._accept("!=")
        if not negated:
            self._expect("=")
        value = self._string()
        return lambda attributes: (attributes.get(key) == value) != negated

    def _prefix(self) -> Predicate:
        for mark in ("(", "attributes", "."):
            self._expect(mark)
        key = self._key()
        self._expect(",")
        prefix = self._string()
        self._expect(")")
        return lambda attributes: key in attributes and attributes[key].startswith(prefix)

    def _key(self) -> str:
        if self._kind() == "word":
            return self._take()
        return self._string()

    def _string(self) -> str:
        if self._kind() != "string":
            raise self._unexpected("a string in double quotes")
        return _ESCAPE.sub(_unescaped, self._take()[1:-1])

    def _kind(self) -> str | None:
        return self._tokens[self._next][0] if self._next < len(self._tokens) else None

    def _peek(self) -> str | None:
        return self._tokens[self._next][1] if self._next < len(self._tokens) else None

    def _take(self) -> str:
        self._next += 1
        return self._tokens[self._next - 1][1]

    def _accept(self, token: str) -> bool:
        accepted = self._peek() == token
        self._next += accepted
        return accepted

    def _expect(self, token: str) -> None:
        if not self._accept(token):
            raise self._unexpected(repr(token))

    def _unexpected(self, wanted: str) -> StatusError:
        if self._next == len(self._tokens):
            return invalid(f"Invalid filter: it ends where {wanted} was expected.")
        _, found, position = self._tokens[self._next]
        return invalid(f"Invalid filter: expected {wanted} at character {position}, found {found!r}.")


def _joined(joint: str, terms: list[Predicate]) -> Predicate:
    combine = all if joint == "AND" else any
    return lambda attributes: combine(term(attributes) for term in terms)


def _unescaped(match: re.Match[str]) -> str:
    two, four, eight, octal, plain = match.groups()
    number = int(two or four or eight, 16) if two or four or eight else int(octal, 8) if octal else None
    if number is not None and number <= 0x10FFFF:
        return chr(number)
    if plain in _PLAIN_ESCAPES:
        return _PLAIN_ESCAPES[plain]
    raise invalid(f"Invalid filter: unknown escape sequence {match[0]!r} in a string.")
