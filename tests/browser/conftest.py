"""A headless Chromium for this folder, and pages that fail a test on any error of the page's own."""

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.board_stand import BoardStand, board_stand

FLAGS = (
    "--no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking --disable-component-update "
    "--disable-sync"
).split()
USUAL_NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


def chromium_path() -> str | None:
    """Return the Chromium that CHROMIUM names, or the usual one; None leaves it to Playwright."""
    return os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, USUAL_NAMES)), None)


# Of this folder, not of the session: while it is open, an event loop runs in the main thread, which other tests want.
@pytest.fixture(scope="package")
def browser():
    api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    with api.sync_playwright() as playwright:
        path = chromium_path() or playwright.chromium.executable_path
        if not Path(path).exists():
            pytest.skip(f"no Chromium: none of {', '.join(USUAL_NAMES)} is installed; install one, or name it in CHROMIUM")
        running = playwright.chromium.launch(executable_path=path, args=FLAGS)
        yield running
        running.close()


@pytest.fixture
def stand() -> Iterator[BoardStand]:
    with board_stand() as running:
        yield running


@pytest.fixture
def open_page(browser) -> Iterator[Callable]:
    """Open a board in a browser profile of its own; errors on the page fail the test when it ends."""
    contexts, errors = [], []

    def opened(stand: BoardStand, **options):
        context = browser.new_context(locale="en-GB", viewport={"width": 1360, "height": 900}, **options)
        context.set_default_timeout(20_000)
        contexts.append(context)
        page = context.new_page()
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.on("console", lambda message: message.type == "error" and errors.append(message.text))
        page.goto(stand.url)
        return page

    opened.errors = errors
    yield opened
    for context in contexts:
        context.close()
    assert [each for each in errors if "ERR_" not in each] == []
