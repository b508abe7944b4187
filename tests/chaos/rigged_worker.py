"""The real worker, started in a process that takes orders: to die at a chosen point, to be slow, to have a wrong clock.

`python -m tests.chaos.rigged_worker` is `python -m worker run` until SIGUSR1 tells it to read its orders, a JSON file named by
CHAOS_ORDERS. Nothing of this is in the product: what is rigged are the libraries' calls around it. CHAOS_MUTATION names a
deliberate bug (see mutations.py). CHAOS_REPORT names a file to which it writes when it committed first.
"""

import json
import os
import signal
import sys
import time
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer

from tests.chaos.mutations import MUTATIONS

# Where a worker can be told to die: see `_rig_calls`.
DEATH_POINTS = ("inferring", "publishing", "before_commit", "in_commit", "after_commit")


class Rig:
    """Carries out orders. `after` lets so many calls at the point of death pass."""

    def __init__(self) -> None:
        self.point: str | None = None
        self.after = 0
        self.slow_s = 0.0
        self.clock_shift_s = 0.0

    def take_orders(self, *_: object) -> None:
        """Read the orders anew; what they don't mention ends."""
        orders = json.loads(Path(os.environ["CHAOS_ORDERS"]).read_text("utf-8"))
        self.point, self.after = orders.get("die_at"), int(orders.get("after", 0))
        self.slow_s, self.clock_shift_s = float(orders.get("slow_s", 0.0)), float(orders.get("clock_shift_s", 0.0))

    def pass_through(self, point: str) -> None:
        """Die here if that is ordered."""
        if point != self.point:
            return
        if self.after > 0:
            self.after -= 1
            return
        os.kill(os.getpid(), signal.SIGKILL)


def main() -> None:
    """Rig this process and run the worker in it."""
    rig = Rig()
    _rig_calls(rig)
    _rig_clock(rig)
    if mutation := os.environ.get("CHAOS_MUTATION"):
        MUTATIONS[mutation].apply()
    signal.signal(signal.SIGUSR1, rig.take_orders)
    from worker.__main__ import main as worker_main

    sys.argv = ["rugo-worker", "run"]
    worker_main()


def _rig_calls(rig: Rig) -> None:
    from worker.inference.onnx_classifier import OnnxClassifier

    report = _Report()

    def logits(call: Callable[..., Any]) -> Callable[..., Any]:
        def rigged(*args: Any, **kwargs: Any) -> Any:
            time.sleep(rig.slow_s)
            found = call(*args, **kwargs)
            rig.pass_through("inferring")
            return found

        return rigged

    OnnxClassifier.logits = logits(OnnxClassifier.logits)
    _wrap(AIOKafkaProducer, "send", after=lambda: rig.pass_through("publishing"))
    _wrap(AIOKafkaConsumer, "commit", before=lambda: rig.pass_through("before_commit"), after=lambda: _committed(rig, report))
    _wrap(AIOKafkaProducer, "send_offsets_to_transaction", before=lambda: rig.pass_through("before_commit"))
    _wrap(
        AIOKafkaProducer,
        "commit_transaction",
        before=lambda: rig.pass_through("in_commit"),
        after=lambda: _committed(rig, report),
    )


def _committed(rig: Rig, report: "_Report") -> None:
    report.note_commit()
    rig.pass_through("after_commit")


def _wrap(owner: type, name: str, *, before: Callable[[], None] | None = None, after: Callable[[], None] | None = None) -> None:
    call = getattr(owner, name)

    async def rigged(*args: Any, **kwargs: Any) -> Any:
        if before is not None:
            before()
        found = await call(*args, **kwargs)
        if after is not None:
            after()
        return found

    setattr(owner, name, rigged)


def _rig_clock(rig: Rig) -> None:
    import worker.app

    right_time = time.time
    time.time = lambda: right_time() + rig.clock_shift_s

    class ShiftedDatetime(datetime):
        @classmethod
        def now(cls, tz: Any = None) -> datetime:
            return datetime.fromtimestamp(time.time(), tz)

    worker.app.datetime = ShiftedDatetime


class _Report:
    """Writes once how long after its start this process committed first."""

    def __init__(self) -> None:
        self._path = os.environ.get("CHAOS_REPORT")
        self._started_s = float(os.environ.get("CHAOS_STARTED_S", time.monotonic()))

    def note_commit(self) -> None:
        if self._path is not None:
            Path(self._path).write_text(json.dumps({"first_commit_s": time.monotonic() - self._started_s}), "utf-8")
            self._path = None


if __name__ == "__main__":
    main()
