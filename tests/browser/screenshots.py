"""Takes the screenshots of the docs from the live board on the demo's chats: `make screenshots`."""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import IO

from playwright.sync_api import Browser, Page, sync_playwright

from tests.browser.conftest import FLAGS, chromium_path

IMAGES = Path(__file__).resolve().parents[2] / "docs" / "images"
WATCHED_S = 130  # long enough for answered escalations
RATE = "4"
VIEWPORT = {"width": 1360, "height": 940}


def main() -> None:
    """Run the demo with its board for a while, and write both pictures."""
    command = [sys.executable, "-m", "worker", "demo", "--board", "--rate", RATE]
    demo = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env={**os.environ, "RUGO_BOARD_PORT": "0"})
    try:
        assert demo.stdout is not None
        url = _board_url(demo.stdout)
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=chromium_path(), args=FLAGS)
            light = _opened(browser, url, locale="ru-RU", color_scheme="light")
            dark = _opened(browser, url, locale="en-GB", color_scheme="dark")
            _read_on(demo.stdout, until_s=time.monotonic() + WATCHED_S)
            light.screenshot(path=IMAGES / "board-light-ru.png")
            dark.screenshot(path=IMAGES / "board-dark-en.png")
            browser.close()
    finally:
        demo.send_signal(signal.SIGINT)
        demo.communicate(timeout=60)


def _opened(browser: Browser, url: str, **options: str) -> Page:
    page = browser.new_context(viewport=VIEWPORT, device_scale_factor=1.25, **options).new_page()
    page.goto(url)
    return page


def _board_url(output: IO[str]) -> str:
    for line in output:
        if found := re.search(r"the board is at (\S+)", line):
            return found[1]
    raise SystemExit("the demo ended before its board began")


def _read_on(output: IO[str], *, until_s: float) -> None:
    while time.monotonic() < until_s and output.readline():
        pass


if __name__ == "__main__":
    IMAGES.mkdir(parents=True, exist_ok=True)
    main()
