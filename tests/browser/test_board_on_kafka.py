"""The board as a process of its own on a real Kafka with the real worker, in a real Chromium."""

import json
import re
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import pytest

from tests.support.stage import Stage
from tests.support.worker_process import wait_until

pytestmark = pytest.mark.broker


@pytest.fixture
def stage(own_kafka, tiny_bundle) -> Iterator[Stage]:
    made = Stage(own_kafka.bootstrap_servers, bundle=tiny_bundle)
    yield made
    made.close()


def create_topics(stage):
    # In another thread: Playwright's event loop runs in this one.
    with ThreadPoolExecutor(1) as other_thread:
        other_thread.submit(stage.create_topics).result()


def start_board(stage, **environment):
    board = stage.start_worker(sys.executable, "-m", "worker", "board", RUGO_BOARD_PORT="0", **environment)
    wait_until(lambda: "the board is at" in board.log, what=board.log)
    return board, SimpleNamespace(url=re.findall(r"the board is at (\S+)", board.log)[0])


def say(stage, chat, text, *, operator="op-anna"):
    value = {"message_id": f"{chat}-{text}", "chat_id": chat, "text": text, "operator_id": operator}
    stage.publish(json.dumps(value, ensure_ascii=False).encode(), key=chat.encode())
    stage.flush()


def wait_for_chat(page, chat, part="troubled"):
    page.locator(f"#{part} .chat h3", has_text=chat).wait_for(timeout=60_000)


def test_a_chat_goes_from_kafka_through_the_worker_to_the_page_and_a_dead_broker_is_told_of(stage, own_kafka, open_page):
    """Board before topics, worker, an angry client, the broker killed and started again, another angry client, a new operator.

    Proves that missing topics and a dead broker are said in words, that the board follows topics that appear, goes on after the
    broker is back, shows the group's lag, and ends with exit code 0.
    """
    board, address = start_board(stage, RUGO_BOARD_SHOW_TEXTS="true")
    page = open_page(address)
    page.locator("#notice", has_text=f"Topics missing in Kafka: {stage.names.emotions}").wait_for(timeout=60_000)
    create_topics(stage)
    worker = stage.start_worker()
    say(stage, "bank-1", "ужасно злюсь")
    wait_for_chat(page, "bank-1")
    assert page.locator("#troubled .texts span").all_inner_texts() == ["ужасно злюсь"]
    page.locator("#notice").wait_for(state="hidden")
    page.locator("#lag .number", has_text=re.compile(r"^0$")).wait_for(timeout=60_000)

    own_kafka.kill()
    page.locator("#notice", has_text="Kafka has not answered since").wait_for(timeout=60_000)
    assert page.locator("#troubled .chat h3").all_inner_texts() == ["bank-1"]
    own_kafka.start()
    say(stage, "bank-2", "ужасно злюсь")
    wait_for_chat(page, "bank-2")
    page.locator("#notice").wait_for(state="hidden")
    say(stage, "bank-1", "спасибо", operator="op-vera")
    wait_for_chat(page, "bank-1", part="others")
    page.locator("#stream .raised", has_text="with op-vera").wait_for()
    assert worker.process.poll() is None, worker.log
    board.terminate()
    assert board.wait() == 0
    assert "злюсь" not in board.log


def test_a_board_that_starts_late_shows_the_present_picture_without_texts(stage, open_page):
    """Labels first, the board after them: it reads the recent history, and without the setting never the texts."""
    create_topics(stage)
    stage.start_worker()
    say(stage, "bank-1", "ужасно злюсь")
    wait_until(lambda: stage.escalations(), what="escalated")
    board, address = start_board(stage)
    page = open_page(address)
    wait_for_chat(page, "bank-1")
    assert page.locator(".texts span").count() == 0
    assert "злюсь" not in page.content()
    board.terminate()
    assert board.wait() == 0
