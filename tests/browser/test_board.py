"""The board in a real browser, beside a real worker: what it shows, does, refuses and looks like."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest
from django.utils import timezone

from i3tasks import RESULT, chain, group, schedule_task
from i3tasks.dashboard.places import PLACES
from i3tasks.models import BoardAct, Deploy, TaskExecution, TaskExecutionTry, TaskGroup, TryState
from i3tasks.store.board_acts import begin
from i3tasks.store.bulk import Act
from i3tasks.store.search import Search
from tests.browser import photos
from tests.browser.conftest import Site
from tests.support.rigs import until

if TYPE_CHECKING:
    from playwright.sync_api import Page

pytestmark = [pytest.mark.timeout(120), pytest.mark.usefixtures("db")]

SCRIPT = "<script>document.title = 'broken into'</script>"


@pytest.fixture(autouse=True)
def nothing_to_complain_of(site: Site) -> Any:
    """No test leaves an error on the console, or a violation of the content policy."""
    yield
    assert site.complaints == []


def outcome(site: Site, pk: int) -> str | None:
    return site.rows(lambda: TaskExecution.objects.get(pk=pk).outcome)


def ended(site: Site, pk: int) -> None:
    until(lambda: outcome(site, pk) is not None, 60)


def figure(page: Page, label: str) -> Any:
    return page.locator(".figure", has_text=label).locator("b")


def test_the_overview_updates_by_itself_while_tasks_run(site: Site) -> None:
    from playwright.sync_api import expect

    expect.set_options(timeout=20_000)
    page = site.open()
    page.select_option("#live-every", "2")
    before = int(figure(page, "running").inner_text())

    handles = site.rows(lambda: photos.render_video.delay_many([(600,)] * 2))

    expect(figure(page, "running")).to_have_text(str(before + 2))
    page.click("#live-pause")
    said = page.locator("#live-said")
    assert said.inner_text() == "Paused"
    site.rows(lambda: [handle.cancel() for handle in handles])
    for handle in handles:
        ended(site, handle.task_execution_id)
    assert int(figure(page, "running").inner_text()) == before + 2, "it is paused"
    page.click("#live-pause")
    expect(figure(page, "running")).to_have_text(str(before))
    assert said.inner_text().startswith("Live")


def test_it_rests_while_its_tab_is_hidden(site: Site) -> None:
    context = site.browser.new_context(storage_state=site.page.context.storage_state())
    page = context.new_page()
    page.clock.install()  # the page's timers go by what the test says
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    hide = "is => { Object.defineProperty(document, 'hidden', {value: is, configurable: true});"
    hide += " document.dispatchEvent(new Event('visibilitychange')); }"
    try:
        page.goto(f"{site.address}/i3/board/")
        with page.expect_response(page.url):
            page.clock.run_for(61_000)
        page.evaluate(hide, True)
        asked.clear()
        page.clock.run_for(600_000)
        assert page.locator("h1").inner_text() == "Overview"
        assert asked == []
        with page.expect_response(page.url):
            page.evaluate(hide, False)
    finally:
        context.close()


def test_a_queue_is_paused_and_resumed(site: Site) -> None:
    from playwright.sync_api import expect

    page = site.open("queues/")
    page.once("dialog", lambda dialog: dialog.accept())
    page.get_by_role("button", name="Pause default").click()
    expect(page.locator(".messages")).to_contain_text("default is paused")

    handle = site.rows(lambda: photos.echo.delay("late"))
    row = page.locator("#board-queues tbody tr", has_text="default").first
    expect(row).to_contain_text("paused")
    expect(row.locator("td").nth(1)).to_have_text("1")
    assert outcome(site, handle.task_execution_id) is None

    page.get_by_role("button", name="Resume default").click()
    expect(page.locator(".messages")).to_contain_text("default is resumed")
    ended(site, handle.task_execution_id)
    assert outcome(site, handle.task_execution_id) == "success"


def test_failures_are_found_looked_into_and_retried(site: Site) -> None:
    handle = site.rows(lambda: photos.charge_card.delay(4711))
    pk = handle.task_execution_id
    ended(site, pk)
    page = site.open()

    page.click("text=failed in 1 h")
    page.fill("#filter-task", "charge_card")
    page.press("#filter-task", "Enter")
    page.wait_for_url(re.compile("task=charge_card"))
    assert "state=failed" in page.url
    assert page.locator("tbody tr").count() == 1
    assert "CardDeclined" in page.locator("tbody tr").inner_text()

    page.click(f"text=charge_card #{pk}")
    assert "order 4711: the bank said no" in page.locator("#board-tries").inner_text()
    assert "raise CardDeclined" in page.locator("details pre").inner_text()
    page.click("button:text-is('Retry')")
    page.wait_for_selector(".message.success")
    page.select_option("#live-every", "2")
    page.wait_for_selector("#try-2 .state-failed")


def test_all_that_match_are_cancelled_and_no_others(site: Site) -> None:
    waiting = site.rows(
        lambda: photos.send_receipt.using(run_after=timedelta(hours=1)).delay_many([(n,) for n in range(7)])
    )
    other = site.rows(lambda: photos.resize.using(run_after=timedelta(hours=1)).delay("a.jpg", 10))
    page = site.open("executions/?state=deferred&task=send_receipt")

    page.click("button:text('Cancel')")
    assert "Cancel 7 executions?" in page.locator("h1").inner_text()
    page.click("#confirm")

    assert "Cancelled: 7." in page.locator(".message.success").inner_text()
    assert {outcome(site, handle.task_execution_id) for handle in waiting} == {"cancelled"}
    assert outcome(site, other.task_execution_id) is None
    page.goto(f"{site.address}/i3/board/acts/")
    row = page.locator("tbody tr").first.inner_text()
    assert "ann" in row
    assert "state deferred, task send_receipt" in row


def test_an_act_whose_process_is_gone_is_finished_by_the_next_request_for_it(site: Site) -> None:
    waiting = site.rows(
        lambda: photos.echo.using(run_after=timedelta(hours=1)).delay_many([(str(n),) for n in range(3)])
    )

    def left_behind() -> int:
        search = Search.parse({"task": "echo", "state": "deferred"}, timezone.now())
        row = begin(search, Act.CANCEL, by="ann", expected=3, until=None, now=timezone.now())
        BoardAct.objects.filter(pk=row.pk).update(lease_until=timezone.now() + timedelta(minutes=5))
        return row.pk

    pk = site.rows(left_behind)
    with site.page.expect_request(re.compile(r"go-on/$")):
        page = site.open(f"acts/{pk}/")
    assert page.locator("progress").count() == 1

    site.rows(lambda: BoardAct.objects.filter(pk=pk).update(lease_until=None))

    page.wait_for_selector("#board-act .state-succeeded")
    assert "Done to\n3\n" in page.locator("#board-act").inner_text()
    assert {outcome(site, handle.task_execution_id) for handle in waiting} == {"cancelled"}


def test_what_runs_is_cancelling_until_its_worker_has_stopped_it(site: Site) -> None:
    handle = site.rows(lambda: photos.render_video.delay(600))
    pk = handle.task_execution_id
    until(lambda: site.rows(lambda: TaskExecutionTry.objects.get(task_execution=pk).started_at), 60)
    page = site.open(f"executions/{pk}/")

    page.click("button:text-is('Cancel')")

    seen = page.locator("#board-execution .state").inner_text()
    assert seen in ("cancelling", "cancelled")
    page.select_option("#live-every", "2")
    page.wait_for_selector("#board-execution .state-cancelled")


def test_a_result_that_is_a_script_is_text(site: Site) -> None:
    handle = site.rows(lambda: photos.echo.delay(SCRIPT))
    ended(site, handle.task_execution_id)

    page = site.open(f"executions/{handle.task_execution_id}/")

    assert SCRIPT in page.locator("#board-tries pre").inner_text()
    assert SCRIPT in page.locator("[aria-label=Arguments]").inner_text()
    assert page.locator("main script").count() == 0
    assert "echo" in page.title()


def test_a_chain_is_walked_by_its_picture(site: Site) -> None:
    handle = site.rows(
        lambda: chain(
            photos.find_photos.s(42),
            group(photos.resize.s(f"{n}.jpg", 640) for n in range(3)).then(photos.publish_album.s(RESULT)),
        ).delay()
    )
    first = site.rows(lambda: TaskExecution.objects.filter(task_name="find_photos").latest("pk")).pk
    assert handle is not None
    until(
        lambda: site.rows(
            lambda: TaskExecution.objects.filter(task_name="publish_album", outcome="success", pk__gt=first).exists()
        ),
        60,
    )
    page = site.open(f"executions/{first}/")
    site.picture("board/chain-light")

    page.locator(".graph a", has_text="publish_album").click()
    page.wait_for_url(re.compile(r"executions/\d+/$"))
    assert page.locator("h1").inner_text().startswith("publish_album")
    page.locator(".graph a", has_text="find_photos").click()
    page.wait_for_url(re.compile(rf"executions/{first}/$"))


def test_it_is_used_by_keyboard(site: Site) -> None:
    page = site.open("executions/")

    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"
    page.keyboard.press("/")
    assert page.evaluate("document.activeElement.id") == "filter-task"
    page.keyboard.type("nothing_has_this_name")
    page.keyboard.press("Enter")
    page.wait_for_url(re.compile("nothing_has_this_name"))
    assert page.locator(".empty").inner_text().startswith("No execution matches")


def some_of_everything(site: Site) -> list[Any]:
    """Executions in every state that a worker leaves them in, and those that run."""
    site.rows(lambda: photos.resize.delay_many([(f"{n}.jpg", 640) for n in range(30)]))
    failing = site.rows(lambda: photos.charge_card.delay_many([(n,) for n in range(4)]))
    site.rows(lambda: photos.sync_stock.delay("Rotterdam"))
    site.rows(lambda: photos.send_receipt.delay_many([(n,) for n in range(3)]))
    site.rows(lambda: photos.resize.using(run_after=timedelta(hours=3)).delay("a.jpg", 1).cancel())
    site.rows(lambda: photos.resize.using(run_after=timedelta(hours=3)).delay("b.jpg", 1))
    album = [photos.render_video.s(600), *(photos.resize.s(f"{n}.jpg", 320) for n in range(4))]
    running = site.rows(
        lambda: [photos.render_video.delay(600), group(album).then(photos.publish_album.s(RESULT)).delay()]
    )
    site.rows(lambda: schedule_task(photos.sync_stock, "0 3 * * 1-5", name="stock of the night", args=["Oslo"]))
    site.rows(lambda: schedule_task(photos.find_photos, "30 6 1 * *", name="album of the month", args=[7]))
    for handle in failing:
        ended(site, handle.task_execution_id)
    until(
        lambda: site.rows(
            lambda: TaskExecutionTry.objects.filter(TryState.RUNNING.condition()).count() >= len(running)
        ),
        60,
    )
    return [failing, running]


def pages_of(site: Site, failing: list[Any], running: list[Any]) -> dict[str, str]:
    """The path of each page, and of executions in their states."""
    groups = site.rows(lambda: list(TaskGroup.objects.order_by("-pk").values_list("pk", flat=True)[:1]))
    site.rows(lambda: Deploy.objects.create(release="2.4.0", first_seen=timezone.now()))
    pages = {place.name: place.url.removeprefix("/i3/board/") for place in PLACES}
    pages |= {"failed": f"executions/{failing[0].task_execution_id}/", "act": "act/?act=retry&state=failed"}
    pages |= {"running": f"executions/{running[0].task_execution_id}/", "group": f"groups/{groups[0]}/"}
    return pages | {"none": "executions/?task=no_such_task"}


@pytest.fixture(scope="module")
def pages(site: Site) -> Iterator[dict[str, str]]:
    failing, running = some_of_everything(site)
    yield pages_of(site, failing, running)
    site.rows(lambda: [handle.cancel() for handle in running])


IN_LIGHT = (
    "act",
    "board-acts",
    "executions",
    "failed",
    "groups",
    "overview",
    "queues",
    "schedules",
    "tasks",
    "workers",
)
"""The pictures of docs/."""


def test_a_checker_of_accessibility_finds_nothing(site: Site, pages: dict[str, str]) -> None:
    from axe_playwright_python.sync_playwright import Axe

    axe = Axe()
    try:
        for scheme in ("light", "dark"):
            site.page.emulate_media(color_scheme=scheme)
            for name, path in pages.items():
                page = site.open(path)
                if scheme == "light" and name in IN_LIGHT:
                    site.picture(f"board/{name}-light")
                found = axe.run(page, options={"resultTypes": ["violations"]}).response["violations"]
                told = [(rule["impact"], rule["id"], [node["html"] for node in rule["nodes"]]) for rule in found]
                assert not told, f"{name}, {scheme}: {told}"
    finally:
        site.page.emulate_media(color_scheme="light")


def test_on_a_phone_nothing_runs_out_of_the_screen(site: Site, pages: dict[str, str]) -> None:
    site.page.set_viewport_size({"width": 375, "height": 812})
    # What a table or a picture hides at its edge is scrolled to.
    beyond = """() => [...document.querySelectorAll("body *")].filter((one) => !one.closest(".table, .unseen, .skip")
        && one.getBoundingClientRect().right > innerWidth + 1).map((one) => one.outerHTML.slice(0, 200))"""
    try:
        for name, path in pages.items():
            page = site.open(path)
            assert page.evaluate("document.documentElement.scrollWidth") <= 375, name
            assert page.evaluate(beyond) == [], name
            shown = page.locator("nav[aria-label='Pages of the board'] a")
            assert all(shown.nth(number).is_visible() for number in range(len(PLACES)))
    finally:
        site.page.set_viewport_size({"width": 1280, "height": 800})


def test_what_can_be_clicked_is_reached_by_keyboard_and_seen_to_be(site: Site, pages: dict[str, str]) -> None:
    clickable = "a[href], button, input:not([type=hidden]), select, summary"
    unreached = f"""() => [...document.querySelectorAll("{clickable}")].filter((one) => {{
        one.focus();
        const isMarked = document.activeElement === one && getComputedStyle(one).outlineStyle !== "none";
        return one.checkVisibility() && !one.disabled && (one.tabIndex < 0 || !isMarked);
    }}).map((one) => one.outerHTML)"""
    for name, path in pages.items():
        page = site.open(path)
        page.keyboard.press("Tab")  # the focus is shown to those who use the keyboard
        assert page.evaluate(unreached) == [], name


def test_by_keyboard_alone_a_failure_is_found_and_retried(site: Site, pages: dict[str, str]) -> None:
    page = site.open()

    def tab_to(name: str) -> None:
        """Press Tab until the focus is on what a screen reader calls so."""
        for _ in range(60):
            page.keyboard.press("Tab")
            if page.evaluate("(document.activeElement.ariaLabel || document.activeElement.innerText).trim()") == name:
                return
        raise AssertionError(f"Tab never comes to {name}")

    tab_to("Executions")
    page.keyboard.press("Enter")
    page.wait_for_url(re.compile("executions/$"))
    page.keyboard.press("/")
    page.keyboard.type("charge_card")
    page.keyboard.press("Enter")
    page.wait_for_url(re.compile("task=charge_card"))
    newest = page.locator("tbody tr a").first.inner_text()
    tab_to(newest)
    page.keyboard.press("Enter")
    page.wait_for_url(re.compile(r"executions/\d+/$"))
    tab_to("Retry")
    page.keyboard.press("Enter")
    page.wait_for_selector(".message.success")
    pk = int(newest.rpartition("#")[2])
    until(lambda: site.rows(lambda: TaskExecutionTry.objects.filter(task_execution=pk, is_completed=True).count() > 1))


def test_the_admins_pages_show_states_errors_and_tracebacks_in_place(site: Site, pages: dict[str, str]) -> None:
    page = site.open()
    page.evaluate("localStorage.setItem('django.admin.navSidebarIsOpen', 'false')")
    page.set_viewport_size({"width": 1500, "height": 800})
    page.goto(f"{site.address}/admin/i3tasks/taskexecution/?state=failed")
    assert "CardDeclined" in page.locator("#result_list").inner_text()
    site.picture("admin/executions-light")
    page.goto(f"{site.address}/admin/i3tasks/taskexecution/")
    page.locator("#result_list tbody tr", has_text="charge_card").locator("a").first.click()
    page.wait_for_url(re.compile(r"/\d+/change/$"))
    page.locator("details summary", has_text="CardDeclined").first.click()
    assert "raise CardDeclined" in page.locator("details[open] pre").first.inner_text()
    assert page.get_by_role("button", name="Retry").or_(page.get_by_role("link", name="Retry")).count() >= 1
    site.picture("admin/execution-light")
    page.goto(f"{site.address}/admin/i3tasks/taskschedule/")
    assert "stock of the night" in page.locator("#result_list").inner_text()
    site.picture("admin/schedules-light")
    page.set_viewport_size({"width": 1280, "height": 800})
