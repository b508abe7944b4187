"""/live and /ready of real workers whose parts are made to hang, on a real Apache Kafka."""

import sys
import time

import pytest

from tests.support.stage import Stage
from tests.support.worker_process import WorkerProcess, ask, wait_until, wait_until_ready

pytestmark = pytest.mark.broker

STALL_S = 4.0
DEADLINES = {"RUGO_STALL_DEADLINE_S": str(STALL_S), "RUGO_BROKER_DEADLINE_S": str(STALL_S)}


@pytest.fixture
def partitions() -> int:
    return 1


def start_broken(stage: Stage, part: str, **environment: str) -> WorkerProcess:
    command = (sys.executable, "-m", "tests.support.broken_worker", part)
    return stage.start_worker(*command, **DEADLINES, **environment)


def wait_until_dead(worker: WorkerProcess, told: str) -> None:
    wait_until(lambda: ask(worker, "/live")[0] == 503, 30, what=worker.log)
    assert told in ask(worker, "/live")[1]["problems"][0]
    assert worker.process.poll() is None


def test_a_model_that_hangs_is_told_and_a_hung_stop_is_cut(stage):
    """Let the model never answer: an idle worker is live, one with records that wait is not; SIGTERM ends it all the same."""
    worker = start_broken(stage, "model", RUGO_STOP_DEADLINE_S="3")
    wait_until_ready(worker)
    assert ask(worker, "/live")[0] == 200
    stage.publish_chats(5)
    stage.flush()
    wait_until_dead(worker, "records wait and nothing has moved")
    assert stage.count_outcomes() == 0
    worker.terminate()
    stopped_s = time.monotonic()
    assert worker.wait(20) == 1, worker.log
    assert time.monotonic() - stopped_s < 8
    assert sum(stage.committed().values()) == 0


def test_a_worker_that_reads_no_more_is_told(stage):
    """Let nobody poll the consumer: the records that wait make /live fail, though the event loop turns and heartbeats go on."""
    worker = start_broken(stage, "reading")
    wait_until_ready(worker)
    stage.publish_chats(5)
    stage.flush()
    wait_until_dead(worker, "records wait and nothing has moved")


def test_an_event_loop_that_hangs_is_told(stage):
    """Block the event loop: the probes are answered by a thread of their own and say so."""
    worker = start_broken(stage, "loop")
    wait_until(lambda: "http_port" in worker.log, 30, what=worker.log)
    wait_until_dead(worker, "the event loop has not turned")


def test_a_slow_poll_is_no_stall(stage):
    """Let one poll take three times the deadline, a micro-batch at a time: /live holds throughout and all is labelled."""
    stage.publish_chats(24)
    stage.flush()
    worker = start_broken(stage, "slow-model", RUGO_MAX_MICRO_BATCH="1")
    worker.wait_until_assigned()
    verdicts: set[int] = set()

    def is_done() -> bool:
        verdicts.add(ask(worker, "/live")[0])
        return stage.count_outcomes() == 24

    started_s = time.monotonic()
    wait_until(is_done, 40, what=worker.log)
    assert time.monotonic() - started_s > 2 * STALL_S
    assert verdicts == {200}


def test_a_worker_beyond_the_partitions_is_a_ready_spare_that_takes_over(stage):
    """Start two workers for one partition: both are ready, one says that it is a spare; without the other it does the work."""
    workers = [stage.start_worker() for _ in range(2)]

    def verdicts() -> list[tuple[int, dict]]:
        return [ask(each, "/ready") for each in workers if "http_port" in each.log]

    wait_until(lambda: [status for status, _ in verdicts()] == [200, 200], 60, what=workers[0].log + workers[1].log)
    [spare] = [index for index, (_, body) in enumerate(verdicts()) if "spare" in body.get("note", "")]
    workers[1 - spare].terminate()
    assert workers[1 - spare].wait() == 0
    stage.publish_chats(3)
    stage.flush()
    wait_until(lambda: stage.count_outcomes() == 3, 60, what=workers[spare].log)
    assert ask(workers[spare], "/ready") == (200, {"ready": True, "problems": []})
