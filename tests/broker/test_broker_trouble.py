"""What the worker does when its broker restarts, or is gone beyond the deadline. These tests have a Kafka of their own."""

import time
from collections.abc import Iterator

import pytest

from tests.broker.test_delivery import wait_until_all_answered
from tests.support.kafka_server import KafkaContainer, KafkaServer, NoKafka, own_kafka_for_tests
from tests.support.worker_runs import Stage, ask, check_ledger, wait_until, wait_until_ready

pytestmark = pytest.mark.broker


@pytest.fixture(scope="module")
def own_kafka() -> Iterator[KafkaServer | KafkaContainer]:
    with own_kafka_for_tests() as found:
        if isinstance(found, NoKafka):
            pytest.skip(found.reason)
        yield found


@pytest.fixture
def stage(own_kafka, tiny_bundle) -> Iterator[Stage]:
    made = Stage(own_kafka.bootstrap_servers, bundle=tiny_bundle).create_topics()
    yield made
    made.close()


def test_a_broker_restart_loses_nothing(stage, own_kafka):
    """Restart the broker while a worker is in the middle of a backlog: it goes on by itself, and the ledger holds."""
    stage.publish_chats(4000)
    stage.flush()
    worker = stage.start_worker(RUGO_MAX_POLL_RECORDS="50", RUGO_BROKER_DEADLINE_S="60")
    wait_until(lambda: stage.count_outcomes() >= 200, what="the worker is at work")
    own_kafka.restart()
    wait_until_all_answered(stage, 120)
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
    stage.publish_chats(4000)
    stage.flush()
    worker = stage.start_worker(RUGO_MAX_POLL_RECORDS="50", RUGO_BROKER_DEADLINE_S="5", RUGO_STOP_DEADLINE_S="8")
    wait_until(lambda: stage.count_outcomes() >= 200, what="the worker is at work")
    own_kafka.kill()
    try:
        assert worker.wait(60) == 1, worker.log
    finally:
        own_kafka.start()
    stage.start_worker()
    wait_until_all_answered(stage, 120)
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
    wait_until_all_answered(stage)
