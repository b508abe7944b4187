"""Exactly-once delivery on a real Apache Kafka, as a reader of committed records sees it: every outcome once, in order."""

import signal

import pytest

from tests.support.stage import Stage, check_ledger
from tests.support.worker_process import WorkerProcess, wait_until

pytestmark = pytest.mark.broker

BACKLOG = 10_000  # more than two workers get through between the first commits and the trouble


@pytest.fixture
def stage(stage: Stage) -> Stage:
    stage.environment |= {"RUGO_DELIVERY": "exactly_once", "RUGO_MAX_POLL_RECORDS": "50"}
    return stage


def check_each_outcome_once_and_in_order(stage: Stage) -> None:
    outcomes = check_ledger(stage)
    assert {each.kind for each in outcomes} == {"emotions"}
    assert len(outcomes) == len(stage.input_positions()), "outcomes are repeated"


def test_kill_9_and_rebalances_of_two_workers_repeat_nothing(stage):
    """Kill a worker with SIGKILL in the middle of a backlog, let two others take it over and one of them leave."""
    stage.publish_chats(BACKLOG)
    stage.flush()
    worker = stage.start_worker()
    stage.wait_until_committed(300)
    worker.kill()
    leaving, staying = stage.start_worker(), stage.start_worker()
    assert stage.uncommitted() > 0, "the worker was through before it was killed"
    stage.wait_until_committed(2000)
    leaving.terminate()
    assert leaving.wait() == 0, leaving.log
    assert stage.uncommitted() > 0, "all was done before one of the two left"
    stage.wait_until_all_committed()
    check_each_outcome_once_and_in_order(stage)
    assert staying.process.poll() is None, staying.log


def test_a_worker_that_wakes_up_after_it_was_taken_for_dead_is_barred_and_goes_on_as_a_member(stage):
    """Freeze a busy worker for longer than the session, let another take over, wake it: what it began counts for nothing."""
    stage.publish_chats(BACKLOG)
    stage.flush()
    zombie = stage.start_worker()
    stage.wait_until_committed(300)
    zombie.process.send_signal(signal.SIGSTOP)
    successor = stage.start_worker()
    assert stage.uncommitted() > 0, "the worker was through before it was frozen"
    stage.wait_until_all_committed()
    zombie.process.send_signal(signal.SIGCONT)
    wait_until(lambda: "partition lost" in zombie.log, what="the zombie finds that it was barred")
    wait_until(lambda: was_assigned(zombie, times=2), what="the zombie joins again")
    stage.publish_chats(600, first=BACKLOG)
    stage.flush()
    stage.wait_until_all_committed()
    check_each_outcome_once_and_in_order(stage)
    for worker in (zombie, successor):
        worker.terminate()
        assert worker.wait() == 0, worker.log


def was_assigned(worker: WorkerProcess, *, times: int) -> bool:
    return worker.log.count("partitions ready") >= times
