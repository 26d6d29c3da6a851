"""What a failure leaves in the row: its own class and message, a traceback, and a last word when it was the last."""

from dataclasses import replace

from i3tasks.core.clock import SYSTEM_CLOCK
from i3tasks.core.deciding import GiveUp, RetryIn
from i3tasks.core.outcome import DEFAULT_LIMITS, ErrorRecord, Failure
from i3tasks.core.retry import RetryPolicy
from i3tasks.exceptions import MaxRetriesExceededError, PermanentError

CLOCK = replace(SYSTEM_CLOCK, random=lambda: 0.5)


class CardDeclined(Exception):
    pass


class Unspeakable(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no words")


def raised(error: BaseException) -> BaseException:
    try:
        raise error
    except BaseException as caught:
        return caught


def failure(error: BaseException, try_number: int = 1) -> Failure:
    return Failure.of(raised(error), RetryPolicy(max_retries=1), try_number, CLOCK)


def test_a_failure_keeps_class_message_and_traceback() -> None:
    record = failure(CardDeclined("no money")).error
    assert (record.error_class, record.message) == (f"{__name__}.CardDeclined", "no money")
    assert record.traceback.startswith("Traceback")
    assert "raise error" in record.traceback
    assert failure(ValueError("x")).error.error_class == "ValueError"


def test_only_the_last_traceback_ends_with_max_retries_exceeded() -> None:
    first, last = failure(CardDeclined("no"), 1), failure(CardDeclined("no"), 2)
    assert isinstance(first.then, RetryIn)
    assert MaxRetriesExceededError.__name__ not in first.error.traceback
    assert last.then == GiveUp(exhausted=True)
    assert (last.error.error_class, last.error.message) == (first.error.error_class, "no")
    assert "CardDeclined: no" in last.error.traceback
    line, note = last.error.traceback.splitlines()[-2:]
    assert line.endswith("MaxRetriesExceededError: The task failed 2 times; max_retries is 1.")
    assert note == "See docs/reference/errors.md."


def test_an_error_that_is_final_exceeds_nothing() -> None:
    final = failure(PermanentError("never"), 2)
    assert final.then == GiveUp(exhausted=False)
    assert MaxRetriesExceededError.__name__ not in final.error.traceback


def test_an_error_whose_str_raises_is_recorded_all_the_same() -> None:
    record = failure(Unspeakable(), 2).error
    assert record.message == "<Unspeakable whose str() raised RuntimeError>"
    assert "Unspeakable" in record.traceback
    assert "MaxRetriesExceededError" in record.traceback


def test_text_that_no_database_takes_is_cleaned_and_long_text_cut() -> None:
    record = ErrorRecord.of(raised(ValueError("\x00\ud800" + "x" * 50_000)))
    for text, limit in ((record.message, DEFAULT_LIMITS.message), (record.traceback, DEFAULT_LIMITS.traceback)):
        assert "\x00" not in text
        text.encode()
        assert len(text) <= limit


def test_the_last_word_survives_the_cut() -> None:
    assert "MaxRetriesExceededError" in failure(ValueError("x" * 50_000), 2).error.traceback[-200:]


def test_a_class_of_endless_name_fits_its_column() -> None:
    assert len(ErrorRecord.of(type("E" * 1000, (Exception,), {})()).error_class) <= 255


def test_errors_that_are_their_own_cause_end() -> None:
    first, second = ValueError("a"), ValueError("b")
    first.__cause__, second.__cause__ = second, first
    assert "ValueError: a" in ErrorRecord.of(first).traceback
