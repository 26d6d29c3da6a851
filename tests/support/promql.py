"""As much of Prometheus's query language as our dashboard and alerts use, over two scrapes of the real metrics.

`rate` and `increase` are what happened between the two. An instant vector is a dict from labels to values.
"""

from __future__ import annotations

import math
import operator
import re
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from prometheus_client.parser import text_string_to_metric_families

Labels = frozenset[tuple[str, str]]
Vector = dict[Labels, float]

TOKEN = re.compile(
    r"\s*(?:(\d+(?:\.\d+)?)|([a-z_][a-z0-9_]*)|(\[[^\]]+\])|(==|!=|=~|>=|<=|[-+*/(){}=,<>])|\"([^\"]*)\")"
)
KNOWN = {"sum", "max", "min", "topk", "rate", "increase", "histogram_quantile", "time", "by", "and", "unless", "or"}
COMPARISONS: dict[str, Callable[[Any, Any], bool]] = {
    ">": operator.gt, "<": operator.lt, "==": operator.eq, "!=": operator.ne, ">=": operator.ge, "<=": operator.le,
}  # fmt: skip
ARITHMETIC = {"+": operator.add, "-": operator.sub, "*": operator.mul, "/": lambda a, b: a / b if b else math.nan}


class Unknown(Exception):
    """The query names a metric or a label that there is not."""


def scraped(text: str) -> dict[str, Vector]:
    """The samples of a scrape, by name. Raises ValueError for text that is no scrape."""
    found: defaultdict[str, Vector] = defaultdict(dict)
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            found[sample.name][frozenset(sample.labels.items())] = sample.value
    return dict(found)


@dataclass
class Scrapes:
    before: dict[str, Vector]
    after: dict[str, Vector]
    seconds: float
    now: float

    def query(self, text: str) -> Vector:
        """The answer: a vector; a scalar has no labels."""
        tokens, end = [], 0
        while end < len(text.rstrip()):
            match = TOKEN.match(text, end)
            if match is None:
                raise SyntaxError(f"{text[end:]!r} in {text!r}")
            tokens.append(match)
            end = match.end()
        parser = _Parser(self, [token[0].strip() for token in tokens])
        answer = parser.expression()
        if parser.rest:
            raise SyntaxError(f"{parser.rest} is left of {text!r}")
        return answer


class _Parser:
    def __init__(self, scrapes: Scrapes, tokens: list[str]) -> None:
        self.scrapes = scrapes
        self.rest = tokens

    def next(self, *expected: str) -> str:
        token = self.rest.pop(0)
        if expected and token not in expected:
            raise SyntaxError(f"{token!r}, not one of {expected}")
        return token

    def peek(self) -> str:
        return self.rest[0] if self.rest else ""

    def expression(self) -> Vector:
        left = self.comparison()
        while self.peek() in ("and", "unless", "or"):
            kind, right = self.next(), self.comparison()
            if kind == "or":
                left = {**right, **left}
            else:
                left = {key: value for key, value in left.items() if (key in right) == (kind == "and")}
        return left

    def comparison(self) -> Vector:
        left = self.arithmetic()
        if self.peek() in COMPARISONS:
            holds, right = COMPARISONS[self.next()], self.arithmetic()
            left = {key: value for key, value in left.items() if holds(value, _match(right, key))}
        return left

    def arithmetic(self) -> Vector:
        left = self.term()
        while self.peek() in ARITHMETIC:
            combine, right = ARITHMETIC[self.next()], self.term()
            if set(left) == {frozenset()} and set(right) != {frozenset()}:
                left = {key: combine(left[frozenset()], value) for key, value in right.items()}
            else:
                matched = {key: (value, _match(right, key)) for key, value in left.items()}
                left = {key: combine(*pair) for key, pair in matched.items() if not math.isnan(pair[1])}
        return left

    def term(self) -> Vector:
        token = self.next()
        if token == "(":
            inner = self.expression()
            self.next(")")
            return inner
        if re.fullmatch(r"\d+(\.\d+)?", token):
            return {frozenset(): float(token)}
        if token == "time":
            self.next("("), self.next(")")
            return {frozenset(): self.scrapes.now}
        if token in ("sum", "max", "min"):
            return self.aggregated(token)
        if token == "topk":
            self.next("(")
            count = int(self.next())
            self.next(",")
            inner = self.expression()
            self.next(")")
            return dict(sorted(inner.items(), key=lambda item: -item[1])[:count])
        if token == "histogram_quantile":
            self.next("(")
            quantile = float(self.next())
            self.next(",")
            inner = self.expression()
            self.next(")")
            return _quantiles(quantile, inner)
        if token in ("rate", "increase"):
            self.next("(")
            name = self.next()
            matches = self.matchers(name)
            if not re.fullmatch(r"\[(\d+[smhd]|\$__rate_interval)\]", window := self.next()):
                raise SyntaxError(window)
            self.next(")")
            per = self.scrapes.seconds if token == "rate" else 1.0
            before = self.scrapes.before.get(name, {})
            return {key: (value - before.get(key, 0.0)) / per for key, value in self.selected(name, matches).items()}
        return self.selected(token, self.matchers(token))

    def aggregated(self, kind: str) -> Vector:
        by: list[str] = []
        if self.peek() == "by":
            self.next()
            self.next("(")
            while (token := self.next()) != ")":
                by += [token] if token != "," else []
        self.next("(")
        inner = self.expression()
        self.next(")")
        if missing := {name for name in by for key in inner if name not in dict(key)}:
            raise Unknown(f"no label {missing}")
        groups: defaultdict[Labels, list[float]] = defaultdict(list)
        for key, value in inner.items():
            groups[frozenset((name, text) for name, text in key if name in by)].append(value)
        return {key: {"sum": sum, "max": max, "min": min}[kind](values) for key, values in groups.items()}

    def matchers(self, name: str) -> list[Callable[[dict[str, str]], bool]]:
        matches: list[Callable[[dict[str, str]], bool]] = []
        if self.peek() == "{":
            self.next()
            while (label := self.next()) != "}":
                if label != ",":
                    matches.append(_matcher(name, label, self.next("=", "!=", "=~"), self.next().strip('"')))
        return matches

    def selected(self, name: str, matches: list[Callable[[dict[str, str]], bool]]) -> Vector:
        if name in KNOWN or name not in self.scrapes.after:
            raise Unknown(f"no metric {name}")
        found = self.scrapes.after[name]
        return {key: value for key, value in found.items() if all(match(dict(key)) for match in matches)}


def _matcher(name: str, label: str, kind: str, text: str) -> Callable[[dict[str, str]], bool]:
    def matches(labels: dict[str, str]) -> bool:
        if label not in labels:
            raise Unknown(f"{name} has no label {label}")
        if kind == "=~":
            return re.fullmatch(text, labels[label]) is not None
        return (labels[label] == text) == (kind == "=")

    return matches


def _match(right: Vector, key: Labels) -> float:
    return right[frozenset()] if set(right) == {frozenset()} else right.get(key, math.nan)


def _quantiles(quantile: float, buckets: Vector) -> Vector:
    groups: defaultdict[Labels, list[tuple[float, float]]] = defaultdict(list)
    for key, value in buckets.items():
        rest = frozenset((name, text) for name, text in key if name != "le")
        groups[rest].append((float(dict(key)["le"].replace("+Inf", "inf")), value))
    answer: Vector = {}
    for key, pairs in groups.items():
        pairs.sort()
        wanted, (low, below) = quantile * pairs[-1][1], (0.0, 0.0)
        for edge, count in pairs:
            if count >= wanted and pairs[-1][1]:
                answer[key] = low if math.isinf(edge) else low + (edge - low) * (wanted - below) / (count - below or 1)
                break
            low, below = edge, count
    return answer
