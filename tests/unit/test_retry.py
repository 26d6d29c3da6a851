"""When a failed try is tried again: the documented delays, and who has the last word."""

import asyncio
import json
import math
from dataclasses import replace
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from i3tasks.core.clock import SYSTEM_CLOCK
from i3tasks.core.deciding import GiveUp, RetryIn, decide
from i3tasks.core.outcome import ErrorRecord
from i3tasks.core.retry import RetryPolicy
from i3tasks.exceptions import PermanentError, Retry, TaskCancelled, TaskTimeout, UnknownTaskError, WorkerLost

CLOCK = replace(SYSTEM_CLOCK, random=lambda: 0.5)  # the middle of every spread


def seconds(number: float) -> RetryIn:
    return RetryIn(timedelta(seconds=number))


def after(error: BaseException, try_number: int = 1, **policy: object) -> RetryIn | GiveUp:
    return decide(RetryPolicy(**policy), try_number, error, CLOCK)  # type: ignore[arg-type]


def test_the_documented_delays_double_from_2_to_60_seconds() -> None:
    policy = RetryPolicy(max_retries=10)
    delays = [policy.delay(number, CLOCK).total_seconds() for number in range(1, 9)]
    assert delays == [2, 4, 8, 16, 32, 60, 60, 60]


def test_by_default_a_task_runs_four_times() -> None:
    answers = [after(ValueError(), number) for number in range(1, 5)]
    assert answers == [seconds(2), seconds(4), seconds(8), GiveUp(exhausted=True)]


@given(st.integers(0, 50), st.integers(1, 60))
def test_it_retries_while_the_try_number_is_at_most_max_retries(max_retries: int, try_number: int) -> None:
    answer = after(ValueError(), try_number, max_retries=max_retries)
    assert isinstance(answer, RetryIn) is (try_number <= max_retries)
    assert isinstance(answer, RetryIn) or answer.exhausted


@pytest.mark.parametrize("base", [None, 0])
def test_no_base_means_at_once(base: int | None) -> None:
    assert after(ValueError(), 3, base_seconds=base) == seconds(0)


@pytest.mark.parametrize("error", [PermanentError(), TaskCancelled(), UnknownTaskError()])
def test_some_errors_are_final_whatever_the_policy(error: Exception) -> None:
    assert after(error, retry_on=(type(error), Exception)) == GiveUp(exhausted=False)


def test_only_what_retry_on_names_is_retried() -> None:
    assert after(KeyError(), retry_on=(LookupError,)) == seconds(2)
    assert after(ValueError(), retry_on=(LookupError,)) == GiveUp(exhausted=False)


def test_give_up_on_wins_over_retry_on() -> None:
    assert after(KeyError(), retry_on=(KeyError,), give_up_on=(LookupError,)) == GiveUp(exhausted=False)
    assert after(SystemExit(1), give_up_on=(SystemExit,)) == GiveUp(exhausted=False)


@pytest.mark.parametrize("error", [Retry(), WorkerLost()])
def test_retry_and_worker_lost_are_retried_though_retry_on_does_not_name_them(error: Exception) -> None:
    assert after(error, retry_on=()) == seconds(2)
    assert after(error, 4, retry_on=()) == GiveUp(exhausted=True), "but they count"


@pytest.mark.parametrize("error", [SystemExit(0), KeyboardInterrupt(), asyncio.CancelledError()])
def test_an_exit_in_a_body_is_a_failure_like_any_other(error: BaseException) -> None:
    assert after(error, retry_on=(ValueError,)) == seconds(2)


def test_a_timeout_is_an_error_like_any_other() -> None:
    assert after(TaskTimeout()) == seconds(2)
    assert after(TaskTimeout(), retry_on=(ValueError,)) == GiveUp(exhausted=False)


class Busy(Retry):
    def __init__(self, seats: int) -> None:
        self.seats = seats


def test_a_retry_without_its_own_init_is_one_all_the_same() -> None:
    assert after(Busy(2)) == seconds(2)


def test_retry_says_when() -> None:
    assert after(Retry(delay=300)) == seconds(300), "not capped: the body knows"
    assert after(Retry(delay=0)) == seconds(0)
    assert after(Retry(delay=-5)) == seconds(0)
    assert after(Retry()) == seconds(2)


@pytest.mark.parametrize("delay", [timedelta.max, timedelta(days=10**6)])
def test_no_delay_leads_beyond_the_calendar(delay: timedelta) -> None:
    answer = after(Retry(delay=delay))
    assert isinstance(answer, RetryIn)
    assert answer.delay <= timedelta(days=3650)


positive = st.floats(0, allow_nan=False)


@given(
    st.builds(
        RetryPolicy,
        max_retries=st.just(10**9),
        base_seconds=st.none() | positive,
        max_seconds=positive,
        multiplier=st.floats(1, allow_nan=False) | st.integers(1, 100),
        jitter=st.floats(0, 1),
    ),
    st.integers(1, 10**6),
    st.floats(0, 1, exclude_max=True),
)
def test_any_valid_policy_gives_a_delay_for_any_try(policy: RetryPolicy, try_number: int, chance: float) -> None:
    clock = replace(SYSTEM_CLOCK, random=lambda: chance)
    delay = policy.delay(try_number, clock)
    assert timedelta(0) <= delay <= timedelta(days=3650)
    most = policy.max_seconds * (1 + policy.jitter)
    assert math.isinf(most) or delay.total_seconds() <= most * 1.001 + 1e-6


@given(st.integers(1, 40))
def test_delays_never_shrink_without_jitter(try_number: int) -> None:
    policy = RetryPolicy(max_seconds=1e6)
    assert policy.delay(try_number, CLOCK) <= policy.delay(try_number + 1, CLOCK)


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        ({"max_retries": -1}, "max_retries must be 0 or more"),
        ({"base_seconds": -1}, "base_seconds must be None, 0 or more"),
        ({"base_seconds": math.nan}, "base_seconds"),
        ({"max_seconds": -1}, "max_seconds must be 0 or more"),
        ({"multiplier": 0.5}, "multiplier must be 1 or more"),
        ({"jitter": 1.1}, "jitter must be between 0 and 1"),
        ({"retry_on": ValueError}, "retry_on must be a tuple"),
        ({"retry_on": ("Nonsense",)}, "retry_on must be a tuple"),
        ({"give_up_on": [ValueError]}, "give_up_on must be a tuple"),
        ({"give_up_on": (int,)}, "give_up_on must be a tuple"),
    ],
    ids=str,
)
def test_a_policy_that_makes_no_sense_is_refused(wrong: dict[str, object], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        RetryPolicy(**wrong)  # type: ignore[arg-type]


def test_a_policy_without_a_cap_is_kept_in_a_row_as_json_has_it() -> None:
    policy = RetryPolicy(max_seconds=math.inf, multiplier=math.inf, max_retries=50)
    stored = RetryPolicy.from_json(json.loads(json.dumps(policy.as_json(), allow_nan=False)))
    assert [stored.delay(number, CLOCK) for number in (1, 2, 50)] == [policy.delay(n, CLOCK) for n in (1, 2, 50)]


class Boom(Exception):
    pass


def _groups(*errors: BaseException) -> list[BaseException]:
    """The errors in a group, and in a group inside another."""
    return [BaseExceptionGroup("g", errors), ExceptionGroup("outer", [Boom(), BaseExceptionGroup("g", errors)])]  # type: ignore[list-item]


def test_errors_in_groups_count_as_they_do_alone() -> None:
    policy = RetryPolicy(retry_on=(Boom, "ConnectionError"), give_up_on=(KeyError,))
    for final in (PermanentError(), KeyError("k"), ValueError("not in retry_on")):
        for error in _groups(ConnectionError(), Retry(delay=5), final):
            assert decide(policy, 1, error, CLOCK) == GiveUp(exhausted=False), error
    for error in _groups(ConnectionError(), Retry(delay=5), Retry(delay=7), Retry()):
        assert decide(policy, 1, error, CLOCK) == RetryIn(timedelta(seconds=7)), "the longest delay"
        assert decide(policy, 4, error, CLOCK) == GiveUp(exhausted=True)


def test_policies_may_name_groups() -> None:
    group = _groups(Boom())[0]
    assert decide(RetryPolicy(retry_on=(ExceptionGroup,)), 1, group, CLOCK) == RetryIn(timedelta(seconds=2))
    assert decide(RetryPolicy(retry_on=("ExceptionGroup",)), 1, group, CLOCK) == RetryIn(timedelta(seconds=2))
    assert decide(RetryPolicy(give_up_on=(ExceptionGroup,)), 1, _groups(Boom())[0], CLOCK) == GiveUp(exhausted=False)


def test_groups_may_be_nested_deeper_than_python_recurses() -> None:
    error: Exception = PermanentError()
    for _ in range(5000):
        error = ExceptionGroup("g", [error])
    assert decide(RetryPolicy(), 1, error, CLOCK) == GiveUp(exhausted=False)


@pytest.mark.parametrize("error", [ValueError("x"), PermanentError(), Boom()])
def test_the_name_that_a_row_has_is_accepted_in_a_policy(error: Exception) -> None:
    name = ErrorRecord.of(error).error_class
    assert decide(RetryPolicy(give_up_on=(name,)), 1, error, CLOCK) == GiveUp(exhausted=False)
    assert decide(RetryPolicy(retry_on=(name,)), 1, ValueError(), CLOCK) == (
        RetryIn(timedelta(seconds=2)) if type(error) is ValueError else GiveUp(exhausted=False)
    )
    with pytest.raises(ValueError, match="full names"):
        RetryPolicy(retry_on=("Nonsense",))


def test_asking_for_another_try_says_so() -> None:
    assert str(Retry(delay=1)) == "The body asked for another try in 1 s."
    assert str(Retry()) == "The body asked for another try after the task's own backoff."
    assert str(Retry("because", delay=1)) == "because"
