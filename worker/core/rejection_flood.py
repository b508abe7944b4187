"""When so many records are rejected that the fault is likely not theirs: stop before everything is diverted."""

import re
from collections import Counter, deque
from collections.abc import Iterable, Mapping

from worker.core.failures import RejectionFloodError
from worker.core.records import TopicPartition

_NOTE = re.compile(r"rejected (\d{1,6}) of (\d{1,6})", re.ASCII)


class RejectionWindow:
    """Counts the rejected among the newest records. `max_share` 1.0 switches the check off.

    What it knows of a partition travels as a note with the partition's committed offset: a worker that is started again, or is
    given the partition, goes on counting where the last one stopped.
    """

    def __init__(self, *, max_share: float, window: int) -> None:
        self._max_share = max_share
        self._window = window
        self._newest: deque[tuple[TopicPartition, bool]] = deque()
        self._records: Counter[TopicPartition] = Counter()
        self._rejected: Counter[TopicPartition] = Counter()
        self._count = 0

    def observe(self, was_rejected: Iterable[tuple[TopicPartition, bool]]) -> None:
        """Take in a poll's records, in order.

        Raises `RejectionFloodError` once a full window has a greater share of rejected records than allowed; the poll must
        then not be published.
        """
        for partition, rejected in was_rejected:
            self._add(partition, rejected)
            if len(self._newest) == self._window and self._count > self._max_share * self._window:
                raise RejectionFloodError(
                    f"{self._count} of the last {self._window} records were rejected, more than the allowed share of "
                    f"{self._max_share:g}: look at them with `python -m worker dlq list` and mend the producer. To let those "
                    "that wait pass into the dead-letter topic, run with RUGO_MAX_REJECTED_SHARE=1 until they have: a "
                    "restart alone goes on counting."
                )

    def note(self, partition: TopicPartition) -> str:
        """Return what is known of a partition, to be stored with its offset."""
        records = self._records[partition]
        return f"rejected {self._rejected[partition]} of {records}" if records else ""

    def recall(self, notes: Mapping[TopicPartition, str]) -> None:
        """Begin anew with what was noted of these partitions; notes of somebody else are passed over."""
        self._newest.clear()
        self._records.clear()
        self._rejected.clear()
        self._count = 0
        found = {partition: _NOTE.fullmatch(note) for partition, note in notes.items()}
        counts = {partition: (int(each[1]), int(each[2])) for partition, each in found.items() if each is not None}
        # Partitions of several workers may bring more than a window holds: each then brings its part of it.
        total = sum(records for _, records in counts.values())
        for partition, (rejected, records) in counts.items():
            kept = records * self._window // max(total, self._window)
            kept_rejected = min(kept, -(-rejected * kept // records)) if records else 0
            for index in range(kept):
                self._add(partition, index >= kept - kept_rejected)

    def _add(self, partition: TopicPartition, rejected: bool) -> None:
        if len(self._newest) == self._window:
            oldest, was_rejected = self._newest.popleft()
            self._records[oldest] -= 1
            self._rejected[oldest] -= was_rejected
            self._count -= was_rejected
        self._newest.append((partition, rejected))
        self._records[partition] += 1
        self._rejected[partition] += rejected
        self._count += rejected
