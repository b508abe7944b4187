"""When so many records are rejected that the fault is likely not theirs: stop before everything is diverted."""

from collections import deque

from worker.core.failures import RejectionFloodError


class RejectionWindow:
    """Counts the rejected among the newest records. `max_share` 1.0 switches the check off."""

    def __init__(self, *, max_share: float, window: int) -> None:
        self._max_share = max_share
        self._newest: deque[bool] = deque(maxlen=window)
        self._rejected = 0

    def observe(self, was_rejected: list[bool]) -> None:
        """Take in a poll's records, in order.

        Raises `RejectionFloodError` once a full window has a greater share of rejected records than allowed; the poll must
        then not be published.
        """
        for rejected in was_rejected:
            if len(self._newest) == self._newest.maxlen:
                self._rejected -= self._newest[0]
            self._newest.append(rejected)
            self._rejected += rejected
            if len(self._newest) == self._newest.maxlen and self._rejected > self._max_share * len(self._newest):
                raise RejectionFloodError(
                    f"{self._rejected} of the last {len(self._newest)} records were rejected, more than the allowed share of "
                    f"{self._max_share:g}: look at dlq.reason and dlq.error in the dead-letter topic, mend the producer, or "
                    "raise RUGO_MAX_REJECTED_SHARE."
                )
