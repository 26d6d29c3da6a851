"""Acts of the board: asked for with a number, done with a permission and a token, finished after a crash, logged."""

from collections.abc import Callable
from datetime import timedelta
from typing import Any
from unittest.mock import patch

import pytest
from django.db.models.signals import pre_delete
from django.test import Client
from django.utils import timezone

from i3tasks.dashboard import acting
from i3tasks.engine import board_acts as engine
from i3tasks.engine.board_acts import advance
from i3tasks.engine.dispatcher import Dispatcher
from i3tasks.models import BoardAct, TaskExecution, TaskExecutionTry
from i3tasks.store import board_acts
from i3tasks.store.board_acts import begin
from i3tasks.store.bulk import Act
from i3tasks.store.search import MOST_COUNTED, Search
from i3tasks.telemetry import subscribe
from tests.support.history import a_try, ago, finished
from tests.support.rigs import NotingPublisher

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("sent")]

ASK, DO = "/i3/board/act/", "/i3/board/act/now/"


def some_failed(count: int) -> set[int]:
    return {finished("failed", ago(minutes=2), name="shop.tasks.pay").pk for _ in range(count)}


def retried() -> set[int]:
    return set(TaskExecutionTry.objects.filter(try_number=2).values_list("task_execution_id", flat=True))


def test_it_is_asked_for_with_the_number_of_those_it_applies_to(admin_client: Client) -> None:
    ids = some_failed(3)
    finished("success", ago(minutes=2), name="shop.tasks.pay")

    response = admin_client.get(ASK, {"act": "retry", "task": "pay"})

    assert str(response.context["count"]) == "3"
    assert {line.execution.pk for line in response.context["lines"]} == ids
    assert not BoardAct.objects.exists()
    assert not retried()


def test_it_is_done_to_all_that_match_and_to_no_others(admin_client: Client, sent: NotingPublisher) -> None:
    ids = some_failed(3)
    finished("failed", ago(minutes=2), name="shop.tasks.other")

    response = admin_client.post(DO, {"act": "retry", "task": "pay"}, follow=True)

    assert retried() == ids
    assert "Given another try: 3." in response.content.decode()
    assert response.redirect_chain == [("/i3/board/executions/?task=pay", 302)]


def test_who_did_what_to_how_many_is_logged_and_listed(admin_client: Client) -> None:
    some_failed(2)
    events: list[tuple[str, dict[str, Any]]] = []
    unsubscribe = subscribe(lambda event, facts: events.append((event.name, dict(facts))))

    admin_client.post(DO, {"act": "retry", "task": "pay", "state": "failed"})
    unsubscribe()

    [facts] = [facts for name, facts in events if name == "executions_acted_on"]
    assert {name: facts[name] for name in ("by", "act", "filter", "done")} == {
        "by": "admin", "act": "retry", "filter": "state=failed task=pay", "done": 2,
    }  # fmt: skip
    text = admin_client.get("/i3/board/acts/").content.decode()
    assert "admin" in text
    assert "state failed, task pay" in text


@pytest.mark.parametrize("names", [("view_board",), ("act_on_board",), ("view_board", "view_arguments")])
def test_it_takes_the_permission(staff: Callable[..., Client], names: tuple[str, ...]) -> None:
    some_failed(1)
    client = staff(*names)

    assert client.get(ASK, {"act": "retry"}).status_code == 403
    assert client.post(DO, {"act": "retry"}).status_code == 403
    assert client.post("/i3/board/acts/1/stop/").status_code == 403
    assert not retried()
    assert b'action="/i3/board/act' not in client.get("/i3/board/executions/").content


def test_it_takes_a_post_with_a_token(staff: Callable[..., Client], settings: Any) -> None:
    """Also where the project has no CSRF middleware."""
    settings.MIDDLEWARE = [name for name in settings.MIDDLEWARE if "Csrf" not in name]
    some_failed(1)
    client = staff("view_board", "act_on_board", enforce_csrf_checks=True)

    assert client.get(DO, {"act": "retry"}).status_code == 405
    assert client.post(DO, {"act": "retry"}).status_code == 403
    assert not retried()

    token = client.get(ASK, {"act": "retry"}).cookies["csrftoken"].value
    assert client.post(DO, {"act": "retry", "csrfmiddlewaretoken": token}).status_code == 302
    assert retried()


@pytest.mark.parametrize(
    "given",
    [
        {},
        {"act": "explode"},
        {"act": "retry", "state": "odd"},
        {"act": "put_off", "delay": "x"},
        {"act": "put_off", "delay": "380000w"},
    ],
)
def test_what_no_page_asks_for_changes_nothing(admin_client: Client, given: dict[str, str]) -> None:
    some_failed(1)

    assert admin_client.post(DO, given).status_code == 404
    assert not BoardAct.objects.exists()


def test_one_execution_is_put_off_run_now_cancelled_and_deleted(admin_client: Client) -> None:
    row = a_try("pending", ago(seconds=5), dispatch_at=ago(), claim_token=None)
    page = f"/i3/board/executions/{row.task_execution_id}/"
    one = {"id": row.task_execution_id, "next": page}

    assert admin_client.post(DO, {**one, "act": "put_off", "delay": "1h"})["Location"] == page
    row.refresh_from_db()
    assert row.run_after is not None
    assert row.run_after > timezone.now() + timedelta(minutes=59)

    admin_client.post(DO, {**one, "act": "run_now"})
    row.refresh_from_db()
    assert row.run_after is None

    admin_client.post(DO, {**one, "act": "cancel"})
    assert TaskExecution.objects.get().outcome == "cancelled"

    said = admin_client.post(DO, {**one, "act": "cancel"}, follow=True).content.decode()
    assert "Left alone: 1, it has ended already." in said

    assert admin_client.post(DO, {"id": row.task_execution_id, "act": "discard"})["Location"] == "/i3/board/executions/"
    assert not TaskExecution.objects.exists()


def test_the_way_back_leads_to_no_other_site(admin_client: Client) -> None:
    [pk] = some_failed(1)

    response = admin_client.post(DO, {"act": "retry", "id": pk, "next": "https://evil.example/"})

    assert response["Location"] == "/i3/board/executions/"


def test_what_is_left_goes_on_in_the_background(admin_client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(acting, "AT_ONCE_SECONDS", 0)
    monkeypatch.setattr("i3tasks.store.bulk.SLICE", 2)
    ids = some_failed(5)

    response = admin_client.post(DO, {"act": "retry", "task": "pay"}, follow=True)
    row = BoardAct.objects.get()
    assert response.redirect_chain == [(f"/i3/board/acts/{row.pk}/", 302)]
    assert (len(retried()), row.done, row.finished_at) == (2, 2, None)
    assert b"data-go-on" in response.content

    for _ in range(3):  # each does one slice at least
        Dispatcher()._act()
    row.refresh_from_db()
    assert retried() == ids
    assert (row.done, row.lease_until) == (5, None)
    assert row.finished_at is not None
    assert b"data-go-on" not in admin_client.get(f"/i3/board/acts/{row.pk}/").content


def test_the_updates_of_another_tab_take_no_message_away(admin_client: Client) -> None:
    some_failed(1)
    admin_client.post(DO, {"act": "retry", "task": "pay"})

    update = admin_client.get("/i3/board/", headers={"X-Requested-With": "i3tasks-board"})

    assert b"Given another try" not in update.content
    assert b"Given another try: 1." in admin_client.get("/i3/board/executions/").content


def test_an_act_is_taken_over_only_from_a_process_that_is_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    ids = some_failed(2)
    search = Search.parse({"state": "failed"}, timezone.now())
    row = begin(search, Act.RETRY, by="ann", expected=2, until=None, now=timezone.now())
    BoardAct.objects.update(lease_until=timezone.now() + timedelta(seconds=20))

    assert advance(seconds=1) is None
    assert advance(row.pk, seconds=1) is None
    assert not retried()

    BoardAct.objects.update(lease_until=ago(seconds=1))
    assert advance(seconds=1) is not None
    assert retried() == ids
    assert advance(seconds=1) is None, "it is finished"


def test_acts_are_forgotten_after_a_time() -> None:
    search = Search.parse({"state": "failed"}, timezone.now())
    for age in (board_acts.KEPT + timedelta(days=1), timedelta(days=1)):
        row = begin(search, Act.RETRY, by="ann", expected=0, until=None, now=timezone.now())
        BoardAct.objects.filter(pk=row.pk).update(finished_at=timezone.now() - age)

    begin(search, Act.RETRY, by="ann", expected=0, until=None, now=timezone.now())

    assert BoardAct.objects.count() == 2


def begun(act: Act, expected: int) -> BoardAct:
    search = Search.parse({"task": "pay"}, timezone.now())
    return begin(search, act, by="ann", expected=expected, until=None, now=timezone.now())


@pytest.mark.parametrize(
    ("expected", "done", "shown"),
    [
        (20, 3, "<dd>3 of about 20</dd>"),
        (MOST_COUNTED, 3, "<dd>3 of at least 10,000</dd>"),
        (MOST_COUNTED, 12_000, "<dd>12,000</dd>"),
        (0, 0, "<dd>0</dd>"),
    ],
)
def test_an_act_says_of_how_many_as_far_as_that_is_known(
    admin_client: Client, expected: int, done: int, shown: str
) -> None:
    row = begun(Act.RETRY, expected)
    BoardAct.objects.update(done=done, lease_until=timezone.now() + timedelta(minutes=5))
    page = f"/i3/board/acts/{row.pk}/"

    assert shown in admin_client.get(page).content.decode()
    BoardAct.objects.update(finished_at=timezone.now())
    assert f"<dd>{done:,}</dd>" in admin_client.get(page).content.decode()


@pytest.mark.parametrize("act", [Act.RETRY, Act.DISCARD])
def test_what_a_process_has_done_that_is_gone_is_not_done_again(act: Act) -> None:
    """How far it is, is written with the slice: those that were retried may have failed again by then."""
    some_failed(3)
    row = begun(act, 3)
    with patch.object(engine, "renew", side_effect=SystemExit), pytest.raises(SystemExit):
        advance(row.pk, seconds=5)
    TaskExecutionTry.objects.update(is_completed=True, finished_at=timezone.now())
    TaskExecution.objects.update(outcome="failed", finished_at=timezone.now())
    BoardAct.objects.update(lease_until=ago(seconds=1))

    resumed = advance(row.pk, seconds=5)

    assert resumed is not None
    assert (resumed.done, resumed.skipped) == (3, {})
    assert resumed.finished_at is not None
    assert not TaskExecutionTry.objects.filter(try_number=3).exists()


def test_what_is_not_noted_is_not_done() -> None:
    some_failed(2)
    row = begun(Act.DISCARD, 2)

    with patch.object(engine, "note", side_effect=SystemExit), pytest.raises(SystemExit):
        advance(row.pk, seconds=5)

    assert TaskExecution.objects.count() == 2


@pytest.mark.parametrize("how", ["taken", "stopped"])
def test_a_process_that_was_too_slow_writes_nothing(how: str) -> None:
    ids = some_failed(2)
    row = begun(Act.DISCARD, 2)

    def late(held: BoardAct, made: Any, now: Any) -> None:
        if how == "taken":
            BoardAct.objects.update(lease_until=now + timedelta(minutes=1))
        else:
            engine.stop(held.pk, by="bob")
        board_acts.note(held, made, now)

    with patch.object(engine, "note", late):
        advance(row.pk, seconds=5)

    assert set(TaskExecution.objects.values_list("pk", flat=True)) == ids
    row.refresh_from_db()
    assert row.done == 0


def test_what_the_projects_code_refuses_is_counted_and_the_dispatcher_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("i3tasks.engine.dispatcher.ACT_SECONDS", 60)  # a slow machine's second turn has its own event
    kept = min(some_failed(3))
    row = begun(Act.DISCARD, 3)
    events: list[tuple[str, dict[str, Any]]] = []

    def refuse(sender: Any, instance: TaskExecution, **_: Any) -> None:
        if instance.pk == kept:
            raise ValueError("not this one")

    dispatcher = Dispatcher()
    pre_delete.connect(refuse, sender=TaskExecution)
    unsubscribe = subscribe(lambda event, facts: events.append((event.name, dict(facts))))
    try:
        for _ in range(6):  # each comes to one part at least
            dispatcher._act_from = 0.0
            dispatcher._pass()
    finally:
        pre_delete.disconnect(refuse, sender=TaskExecution)
        unsubscribe()

    row.refresh_from_db()
    assert (row.done, row.skipped) == (2, {"ValueError was raised": 1})
    assert row.finished_at is not None
    names = [name for name, _ in events]
    assert (names.count("act_failed"), names.count("internal_error")) == (1, 0)
    assert next(facts["error"] for name, facts in events if name == "act_failed") == "ValueError('not this one')"
    assert list(TaskExecution.objects.values_list("pk", flat=True)) == [kept]


def test_an_act_that_can_not_be_done_at_all_keeps_no_try_from_its_turn() -> None:
    row = begun(Act.RETRY, 1)
    BoardAct.objects.update(act="later_version")
    dispatcher = Dispatcher()

    dispatcher._pass()  # raises nothing

    assert engine.stop(row.pk, by="bob") is not None
    assert advance(row.pk, seconds=1) is None


def test_an_act_under_way_is_stopped(staff: Callable[..., Client], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("i3tasks.store.bulk.SLICE", 2)
    some_failed(5)
    row = begun(Act.DISCARD, 5)
    advance(row.pk, seconds=0)
    page, stop = f"/i3/board/acts/{row.pk}/", f"/i3/board/acts/{row.pk}/stop/"
    client = staff("view_board", "act_on_board", enforce_csrf_checks=True)
    assert client.post(stop).status_code == 403
    assert client.get(stop).status_code == 405
    events: list[tuple[str, dict[str, Any]]] = []
    unsubscribe = subscribe(lambda event, facts: events.append((event.name, dict(facts))))

    shown = client.get(page)
    assert f'action="{stop}"' in shown.content.decode()
    token = {"csrfmiddlewaretoken": shown.cookies["csrftoken"].value}
    assert client.post(stop, token)["Location"] == page
    assert "There was nothing to stop" in client.post(stop, token, follow=True).content.decode()
    unsubscribe()

    assert advance(row.pk, seconds=5) is None
    assert TaskExecution.objects.count() == 3
    row.refresh_from_db()
    [(reason, left)] = row.skipped.items()
    assert (row.done, reason.startswith("stopped by "), left) == (2, True, 3)
    assert [name for name, _ in events if name in ("executions_acted_on", "board_acted")] == [
        "executions_acted_on", "board_acted",
    ]  # fmt: skip
    after = client.get(page).content.decode()
    assert stop not in after
    assert reason in after
