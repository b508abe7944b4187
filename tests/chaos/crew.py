"""The worker processes of a chaos run: started, hurt, and started again as a supervisor would, every end looked into."""

import json
import random
import signal
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from tests.support.stage import Stage
from tests.support.worker_process import WorkerProcess

_RESTART_AFTER_S = 1.0
# How long after trouble its consequences may still end a worker: the broker deadline, and the stop that follows.
_AFTERMATH_S = 40.0
_SENTENCE = "rugo-worker: "

Ended = Literal["killed", "stopped", "said why", "for no reason"]


@dataclass(slots=True)
class Worker:
    """A worker process and what was done to it."""

    process: WorkerProcess
    folder: Path
    is_frozen: bool = False
    is_asked_to_stop: bool = False

    @property
    def is_running(self) -> bool:
        return self.process.process.poll() is None

    @property
    def is_at_work(self) -> bool:
        return self.is_running and not (self.is_frozen or self.is_asked_to_stop) and self.first_commit_s is not None

    @property
    def first_commit_s(self) -> float | None:
        """Seconds from its start to its first commit, once there was one."""
        try:
            return float(json.loads((self.folder / "report.json").read_text("utf-8"))["first_commit_s"])
        except (OSError, ValueError):
            return None

    def order(self, **orders: object) -> None:
        """Give orders to the rigged process; those given before end."""
        path = self.folder / "orders.json"
        path.with_suffix(".new").write_text(json.dumps(orders), "utf-8")
        path.with_suffix(".new").replace(path)
        self.signal(signal.SIGUSR1)

    def signal(self, number: int) -> None:
        self.process.process.send_signal(number)

    def kill(self) -> None:
        self.signal(signal.SIGKILL)

    def stop(self) -> None:
        self.is_asked_to_stop = True
        self.signal(signal.SIGTERM)

    def freeze(self) -> None:
        self.is_frozen = True
        self.signal(signal.SIGSTOP)

    def thaw(self) -> None:
        self.is_frozen = False
        self.signal(signal.SIGCONT)


@dataclass(slots=True)
class Excuse:
    """Trouble under which a worker may end by itself, if its sentence holds one of `sentences`."""

    sentences: tuple[str, ...]
    until_s: float = float("inf")


@dataclass
class Crew:
    """Keeps `wanted` workers running, `most` unless a fault wants fewer. Ends that nothing excuses are kept in `bad_ends`."""

    stage: Stage
    folder: Path
    environment: dict[str, str]
    most: int
    wanted: int = field(init=False)
    workers: list[Worker] = field(default_factory=list)
    ends: Counter[str] = field(default_factory=Counter)
    bad_ends: list[str] = field(default_factory=list)
    is_on_hold: bool = False
    _started: int = 0
    _start_after_s: float = 0.0
    _excuses: list[Excuse] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.wanted = self.most

    def tend(self) -> None:
        """Look into the workers that ended, and start those that are missing."""
        for worker in [each for each in self.workers if not each.is_running]:
            self.workers.remove(worker)
            self._look_into(worker)
        missing = self.wanted - len([each for each in self.workers if not each.is_asked_to_stop])
        if missing > 0 and not self.is_on_hold and time.monotonic() >= self._start_after_s:
            for _ in range(missing):
                self.start()

    def start(self) -> Worker:
        """Start one worker more."""
        self._started += 1
        folder = self.folder / f"worker-{self._started}"
        folder.mkdir()
        own = {
            "CHAOS_ORDERS": str(folder / "orders.json"),
            "CHAOS_REPORT": str(folder / "report.json"),
            "CHAOS_STARTED_S": str(time.monotonic()),
        }
        command = (sys.executable, "-m", "tests.chaos.rigged_worker")
        process = self.stage.start_worker(*command, **{**self.environment, **own})
        worker = Worker(process, folder)
        self.workers.append(worker)
        return worker

    def pick(self, rng: random.Random) -> Worker | None:
        """Return one of the workers that are at work, if there is one."""
        found = [each for each in self.workers if each.is_at_work]
        return rng.choice(found) if found else None

    @contextmanager
    def excused(self, *sentences: str) -> Iterator[None]:
        """While this lasts, and for its aftermath, a worker may end with one of the sentences."""
        excuse = Excuse(sentences)
        self._excuses.append(excuse)
        try:
            yield
        finally:
            excuse.until_s = time.monotonic() + _AFTERMATH_S

    def close(self) -> None:
        """End every worker at once."""
        for worker in self.workers:
            worker.thaw()
        self.stage.close()

    def _look_into(self, worker: Worker) -> None:
        code, log = worker.process.wait(1), worker.process.log
        ended = self._why(worker, code, log)
        if ended == "for no reason":
            path = self.folder / f"{worker.folder.name}.log"
            path.write_text(log, "utf-8")
            self.bad_ends.append(f"exit code {code}: {_sentence_in(log) or 'no sentence'} ({path})")
        self.ends[ended] += 1
        self._start_after_s = 0.0 if self.is_on_hold else time.monotonic() + _RESTART_AFTER_S
        worker.process.close()
        self.stage.workers.remove(worker.process)

    def _why(self, worker: Worker, code: int, log: str) -> Ended:
        if code == -signal.SIGKILL:
            return "killed"
        self._excuses = [each for each in self._excuses if each.until_s > time.monotonic()]
        sentence = _sentence_in(log)
        if any(part in sentence for excuse in self._excuses for part in excuse.sentences):
            return "said why"
        if not worker.is_asked_to_stop:
            return "for no reason"
        # By the signal itself before it has begun to listen; by its watchdog while the broker is in trouble.
        is_cut_early = code == -signal.SIGTERM and worker.first_commit_s is None
        is_cut_late = code == 1 and bool(self._excuses)
        return "stopped" if code == 0 or is_cut_early or is_cut_late else "for no reason"


def _sentence_in(log: str) -> str:
    said = [line for line in log.splitlines() if line.startswith(_SENTENCE)]
    return said[-1].removeprefix(_SENTENCE) if said else ""
