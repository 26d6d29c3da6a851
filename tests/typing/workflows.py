# pyright: reportUnnecessaryTypeIgnoreComment=true
"""What type checkers must make of workflows. Never run; see `calls`."""

from typing import Any, assert_type

from i3tasks import RESULT, chain, group, task
from i3tasks.calls.canvas import Signature
from i3tasks.calls.handles import ChainHandle
from i3tasks.models import TaskGroup


@task
async def fetch(url: str) -> bytes:
    return url.encode()


@task
def parse(page: bytes, *, strict: bool = False) -> list[str]:
    return []


def signatures() -> None:
    assert_type(fetch.s("https://example.com"), Signature[bytes])
    assert_type(fetch.s("https://example.com").delay(), ChainHandle[bytes])
    assert_type(parse.s(RESULT, strict=True), Signature[list[str]])
    assert_type(parse.using(timeout=3).s(RESULT), Signature[list[str]])
    fetch.s(1)  # type: ignore[arg-type]
    fetch.s()  # type: ignore[call-arg]
    parse.s(RESULT, stricht=True)  # type: ignore[call-arg]
    fetch.s("x").delay("y")  # type: ignore[call-arg]


def chains() -> None:
    assert_type(fetch.s("x") | parse.s(RESULT), chain[list[str]])
    assert_type(fetch.s("x") | parse.s(RESULT) | fetch.s("y"), chain[bytes])
    assert_type(chain(fetch.s("x"), parse.s(RESULT)).delay(), ChainHandle[list[str]])
    assert_type(chain(fetch.s("x"), parse.s(RESULT)).delay().result(), list[str])
    assert_type(chain(*(fetch.s(url) for url in "ab")), chain[Any])
    assert_type(chain(fetch.s("x"), parse.s(RESULT), parse).otherwise(parse).delay(), ChainHandle[list[str]])
    assert_type(chain(fetch.s("x"), group(parse.s(RESULT)), fetch.build_chain("y")), chain[bytes])
    chain("fetch")  # type: ignore[call-overload]
    chain(fetch.s("x")).otherwise(chain(parse.s(RESULT)))  # type: ignore[arg-type]


def groups() -> None:
    assert_type(group(fetch.s(url) for url in "ab"), group)
    assert_type(group(fetch.s("a"), chain(fetch.s("b")), wait_for_all=True, deadline=60).delay(), TaskGroup)
    assert_type(group(fetch.s("a")).then(parse.s(RESULT)).otherwise(parse), group)
    assert_type(group(fetch.s("a")) | parse.s(RESULT), chain[list[str]])
    assert_type(TaskGroup.create(callback=parse, total_count=2, args=[1]), TaskGroup)
    group(fetch.s("a")).then("parse")  # type: ignore[arg-type]


def handles() -> None:
    handle = fetch.delay("x")
    assert_type(handle.then(parse, RESULT).then(fetch, "y"), ChainHandle[bytes])
    assert_type(handle.then(parse, RESULT), ChainHandle[list[str]])
    assert_type(handle.then(parse.s(RESULT)).result(), list[str])
    assert_type(handle.result(timeout=5), bytes)
    assert_type(parse.build_chain(b""), ChainHandle[list[str]])
    handle.then("parse")  # type: ignore[call-overload]


async def twins() -> None:
    assert_type(await fetch.s("x").adelay(), ChainHandle[bytes])
    assert_type(await chain(fetch.s("x")).adelay(), ChainHandle[bytes])
    assert_type(await group(fetch.s("x")).adelay(), TaskGroup)
    handle = await fetch.adelay("x")
    assert_type(await (await handle.athen(parse, RESULT)).aresult(), list[str])
    assert_type(await TaskGroup.acreate(callback=parse, total_count=2), TaskGroup)
