"""Watches whether the clients' emotions drift from the baseline, and says so in the metrics."""

import json
from collections import Counter
from collections.abc import Collection, Iterable

from worker.core.drift import LabelBaseline, LabelCounts, LabelWindow, baseline_of, drift_by_label, overall_drift
from worker.core.failures import ConfigurationError
from worker.telemetry.metrics import Metrics

# Of fewer messages the index is mostly chance: with 28 labels and a baseline of 1,700 messages about 0.05 at a thousand.
MIN_MESSAGES = 1000
_MESSAGES_BETWEEN = 50


class DriftWatch:
    """Compares the newest client messages with the baseline, every few of them.

    What it remembers begins anew with the process: there is no index before `MIN_MESSAGES` messages, or the window if smaller.
    """

    def __init__(self, baseline: LabelCounts, *, window: int, metrics: Metrics) -> None:
        self._baseline = baseline
        self._window = LabelWindow(window)
        self._least = min(window, MIN_MESSAGES)
        self._metrics = metrics
        self._messages = 0
        metrics.show_drift_window()

    def observe(self, labels: Collection[str]) -> None:
        """Take in the labels of a client's message."""
        self._window.observe(labels)
        self._messages += 1
        if self._messages % _MESSAGES_BETWEEN == 0 or self._messages == self._least:
            self._measure()

    def _measure(self) -> None:
        now = self._window.counts()
        self._metrics.drift_messages.set(now.messages)
        if now.messages >= self._least:
            self._metrics.set_drift(overall_drift(now, self._baseline), by_label=drift_by_label(now, self._baseline))


def baseline_of_events(lines: Iterable[bytes], *, source: str) -> LabelBaseline:
    """Return the baseline that emotion events make, one JSON object a line; those of others than the client are left out.

    What `python -m worker classify --json` prints will do too. Raises `ConfigurationError` at a line that is neither, and
    without any.
    """
    given: Counter[str] = Counter()
    messages = unlabelled = 0
    for number, line in enumerate(lines, start=1):
        if line.strip() and (labels := _client_labels(line, number)) is not None:
            given.update(labels)
            messages += 1
            unlabelled += not labels
    if not messages:
        raise ConfigurationError("no emotion event of a client came in on standard input")
    return baseline_of(LabelCounts(messages, given, unlabelled), source=source)


def _client_labels(line: bytes, number: int) -> list[str] | None:
    try:
        event = json.loads(line)
        labels = [str(each["label"]) for each in event["emotions"]]
    except (ValueError, TypeError, KeyError) as error:
        raise ConfigurationError(f"line {number} of standard input is no emotion event: {type(error).__name__}") from error
    return labels if event.get("author", "client") == "client" else None
