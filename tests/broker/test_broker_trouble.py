"""What the worker does when its broker restarts, or is gone beyond the deadline. These tests have a Kafka of their own."""

import time

import pytest

from tests.support.stage import check_ledger
from tests.support.worker_process import ask, wait_until, wait_until_ready

pytestmark = pytest.mark.broker

BACKLOG = 8000  # more than a worker gets through between its first outcomes and the trouble


@pytest.fixture(scope="module")
def kafka(own_kafka):
    return own_kafka


def test_a_broker_restart_loses_nothing(stage, own_kafka):
    """Restart the broker while a worker is in the middle of a backlog: it goes on by itself, and the ledger holds."""
    stage.publish_chats(BACKLOG)
    stage.flush()
    worker = stage.start_worker(RUGO_MAX_POLL_RECORDS="50", RUGO_BROKER_DEADLINE_S="60")
    stage.wait_until_outcomes(200)
    own_kafka.restart()
    assert stage.uncommitted() > 0, "the worker was through before the broker restarted"
    stage.wait_until_all_answered(120)
    assert worker.process.poll() is None, worker.log
    check_ledger(stage)


def test_a_broker_that_is_gone_for_longer_than_the_deadline_ends_an_idle_worker(stage, own_kafka):
    """Kill the broker under a worker that has nothing to do: it exits with code 1 and says which broker is gone."""
    worker = stage.start_worker(RUGO_BROKER_DEADLINE_S="5", RUGO_STOP_DEADLINE_S="8")
    wait_until(lambda: "partitions ready" in worker.log, what=worker.log)
    own_kafka.kill()
    try:
        started_s = time.monotonic()
        assert worker.wait(40) == 1, worker.log
        assert time.monotonic() - started_s < 30
        assert f"no Kafka broker answered at {own_kafka.bootstrap_servers}" in worker.log
    finally:
        own_kafka.start()


def test_a_broker_that_is_gone_in_the_middle_of_a_backlog_ends_the_worker_and_nothing_is_lost(stage, own_kafka):
    """Kill the broker under a busy worker beyond the deadline, start both again: every message has its outcome."""
    stage.publish_chats(BACKLOG)
    stage.flush()
    worker = stage.start_worker(RUGO_MAX_POLL_RECORDS="50", RUGO_BROKER_DEADLINE_S="5", RUGO_STOP_DEADLINE_S="8")
    stage.wait_until_outcomes(200)
    own_kafka.kill()
    try:
        assert worker.wait(60) == 1, worker.log
    finally:
        own_kafka.start()
    assert stage.uncommitted() > 0, "the worker was through before the broker was killed"
    stage.start_worker()
    stage.wait_until_all_answered(120)
    check_ledger(stage)


def test_a_broker_that_freezes_makes_a_worker_not_ready_but_live(stage, own_kafka):
    """Freeze the broker: /ready fails and names it, /live holds; thawed, the worker is ready and labels again."""
    worker = stage.start_worker(RUGO_STALL_DEADLINE_S="1", RUGO_BROKER_DEADLINE_S="40")
    wait_until_ready(worker)
    own_kafka.pause()
    try:
        wait_until(lambda: ask(worker, "/ready")[0] == 503, 30, what=worker.log)
        assert ask(worker, "/ready")[1]["problems"] == ["the broker does not answer"]
        assert ask(worker, "/live")[0] == 200
    finally:
        own_kafka.resume()
    wait_until(lambda: ask(worker, "/ready")[0] == 200, 30, what=worker.log)
    stage.publish_chats(3)
    stage.flush()
    stage.wait_until_all_answered()
