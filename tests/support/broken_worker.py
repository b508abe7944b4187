"""The real worker with one part of it broken, as a process: `python -m tests.support.broken_worker PART`.

What breaks, breaks when the text or the moment comes that the tests choose; until then it is the worker as it is.
"""

import asyncio
import sys
import time

from worker import app
from worker.__main__ import main
from worker.inference.onnx_classifier import OnnxClassifier
from worker.telemetry import health

FOR_EVER_S = 600.0
SLOW_S = 0.5


def break_model() -> None:
    """From the second micro-batch on (the first warms the model) the model never answers."""
    _delay_model(FOR_EVER_S, first=1)


def slow_model() -> None:
    """The model takes half a second for a micro-batch."""
    _delay_model(SLOW_S, first=1)


def break_reading() -> None:
    """Once it has its partitions, nobody reads them any more."""

    async def read_nothing(*_: object, **__: object) -> None:
        await asyncio.sleep(FOR_EVER_S)

    app.read_polls = read_nothing


def break_loop() -> None:
    """Three seconds after the start something on the event loop blocks it; a silence of two seconds is a hang."""
    health._LOOP_STALL_S = 2.0
    beat, started_s = health.Health.beat, time.monotonic()

    def beat_then_block(self: health.Health) -> None:
        beat(self)
        if self.is_model_warm and time.monotonic() > started_s + 3:
            time.sleep(FOR_EVER_S)

    health.Health.beat = beat_then_block


def _delay_model(seconds: float, *, first: int) -> None:
    logits, calls = OnnxClassifier.logits, []

    def delayed(self: OnnxClassifier, tokenized: object) -> object:
        calls.append(0)
        if len(calls) > first:
            time.sleep(seconds)
        return logits(self, tokenized)

    OnnxClassifier.logits = delayed


PARTS = {"model": break_model, "slow-model": slow_model, "reading": break_reading, "loop": break_loop}

if __name__ == "__main__":
    PARTS[sys.argv[1]]()
    sys.argv[1:] = ["run"]
    main()
