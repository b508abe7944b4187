"""Exactly-once delivery on a real Apache Kafka, as a reader of committed records sees it: every outcome once, in order."""

import json
import signal
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.chaos.reading import TopicReader
from tests.support.kafka_server import Kafka
from tests.support.worker_runs import Stage, WorkerProcess, wait_until

pytestmark = pytest.mark.broker


@pytest.fixture
def stage(kafka: Kafka, tiny_bundle: Path) -> Iterator[Stage]:
    made = Stage(kafka.bootstrap_servers, bundle=tiny_bundle).create_topics()
    made.environment |= {"RUGO_DELIVERY": "exactly_once", "RUGO_MAX_POLL_RECORDS": "50"}
    yield made
    made.close()


def wait_until_all_committed(stage: Stage) -> None:
    wait_until(lambda: stage.committed() == stage.ends(), 90, what="every input committed")


def wait_until_at_work(stage: Stage, *, committed: int) -> None:
    wait_until(lambda: sum(stage.committed().values()) >= committed, what=f"{committed} inputs committed")


def check_each_outcome_once_and_in_order(stage: Stage) -> None:
    labels = [message.key() + message.value() for message in TopicReader(stage.bootstrap_servers, stage.names.emotions).read()]
    answers = Counter(_source(each) for each in labels)
    assert answers.keys() == stage.input_positions()
    assert set(answers.values()) == {1}
    newest: dict[bytes, tuple[int, int]] = {}
    for each in labels:
        chat = each.partition(b"{")[0]
        assert newest.get(chat, (-1, -1)) < _source(each), "labels out of order"
        newest[chat] = _source(each)


def _source(label: bytes) -> tuple[int, int]:
    source = json.loads(label[label.index(b"{") :])["source"]
    return source["partition"], source["offset"]


def test_kill_9_and_rebalances_of_two_workers_repeat_nothing(stage):
    """Kill a worker with SIGKILL in the middle of a backlog, let two others take it over and one of them leave."""
    stage.publish_chats(6000)
    stage.flush()
    worker = stage.start_worker()
    wait_until_at_work(stage, committed=300)
    worker.kill()
    leaving, staying = stage.start_worker(), stage.start_worker()
    wait_until_at_work(stage, committed=2000)
    leaving.terminate()
    assert leaving.wait() == 0, leaving.log
    wait_until_all_committed(stage)
    check_each_outcome_once_and_in_order(stage)
    assert staying.process.poll() is None, staying.log


def test_a_worker_that_wakes_up_after_it_was_taken_for_dead_is_barred_and_goes_on_as_a_member(stage):
    """Freeze a busy worker for longer than the session, let another take over, wake it: what it began counts for nothing."""
    stage.publish_chats(6000)
    stage.flush()
    zombie = stage.start_worker()
    wait_until_at_work(stage, committed=300)
    zombie.process.send_signal(signal.SIGSTOP)
    successor = stage.start_worker()
    wait_until_all_committed(stage)
    zombie.process.send_signal(signal.SIGCONT)
    wait_until(lambda: "partition lost" in zombie.log, what="the zombie finds that it was barred")
    wait_until(lambda: was_assigned(zombie, times=2), what="the zombie joins again")
    stage.publish_chats(600, first=6000)
    stage.flush()
    wait_until_all_committed(stage)
    check_each_outcome_once_and_in_order(stage)
    for worker in (zombie, successor):
        worker.terminate()
        assert worker.wait() == 0, worker.log


def was_assigned(worker: WorkerProcess, *, times: int) -> bool:
    return worker.log.count("partitions ready") >= times
