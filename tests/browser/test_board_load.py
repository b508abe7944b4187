"""The board with 10,000 chats that keep talking: shown in time, the page responsive, both sides bounded."""

import random
import sys
import threading
import time
from statistics import median

from tests.support.board_stand import heard, raised, record

CHATS = 10_000
EVENTS_A_SECOND = 400
WATCH_TASKS = """() => {
    window.tasks = [];
    const observer = new PerformanceObserver(list => window.tasks.push(...list.getEntries().map(each => each.duration)));
    observer.observe({ type: "longtask" });
}"""


def test_ten_thousand_chats_are_shown_in_time_and_the_page_stays_responsive(stand, open_page):
    """10,000 chats, 400 labels a second: an escalation is on the page within 2 s, and the page's thread is mostly idle.

    What the page computes is counted in processor time, which other processes on a busy machine don't lengthen;
    docs/board.md has the longest task on a quiet one.
    """
    lazy = random.Random(7)
    for first in range(0, CHATS, 500):
        stand.take(*[record(_label(lazy, number, ago_s=600)) for number in range(first, first + 500)])
    page = open_page(stand)
    page.locator(".chat").first.wait_for()
    page.evaluate(WATCH_TASKS)
    session = page.context.new_cdp_session(page)
    session.send("Performance.enable", {"timeDomain": "threadTicks"})
    busy_before_s, began_all_s = _busy_s(session), time.monotonic()
    over = threading.Event()
    talking = threading.Thread(target=_talk, args=(stand, lazy, over))
    talking.start()
    delays_s = []
    try:
        for number in range(8):
            began_s = time.monotonic()
            stand.take(record(raised(f"probe-{number}", 0.99)))
            page.locator("#troubled .chat h3", has_text=f"probe-{number}").wait_for()
            delays_s.append(time.monotonic() - began_s)
    finally:
        over.set()
        talking.join(30)
    busy_share = (_busy_s(session) - busy_before_s) / (time.monotonic() - began_all_s)
    tasks_ms = page.evaluate("window.tasks")
    elements = page.evaluate("document.querySelectorAll('*').length")
    heap_mb = page.evaluate("performance.memory.usedJSHeapSize") / 1e6
    sys.stdout.write(
        f"shown after {median(delays_s):.2f} s, {max(delays_s):.2f} s at most; longest task {max(tasks_ms, default=0):.0f} ms, "
        f"busy {busy_share:.0%}; {elements} elements; heap {heap_mb:.1f} MB\n"
    )
    assert median(delays_s) < 2.0
    assert busy_share < 0.3
    assert page.locator("#trouble .more").inner_text() == "of 10,008 chats"
    assert page.locator(".chat").count() <= 60
    assert elements < 3000
    assert heap_mb < 60


def _busy_s(session):
    metrics = {each["name"]: each["value"] for each in session.send("Performance.getMetrics")["metrics"]}
    return metrics["TaskDuration"]


def _label(lazy, number, *, ago_s=0.0):
    return heard(f"chat-{number:05}", lazy.random() ** 3, "annoyance", operator=f"op-{number % 90}", ago_s=ago_s)


def _talk(stand, lazy, over):
    while not over.wait(0.1):
        stand.take(*[record(_label(lazy, lazy.randrange(CHATS))) for _ in range(EVENTS_A_SECOND // 10)])
