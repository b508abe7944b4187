"""From the labels of an input partition back to what was remembered of its chats."""

from worker.core.escalation import ChatFacts, ChatState, EscalationPolicy, JudgedMessage, recall_message
from worker.core.label_state import PublishedLabel


class PartitionRecall:
    """Rebuilds the chats' states of one input partition from its labels.

    - Labels are taken as they stand on the emotions topic: nearly in the order of their messages, some of them more than once.
      A crash can put them out of order by as many as its polls in progress held: up to `max_disorder` are put right.
    - Of repeats the first counts; labels of records from `next_offset` on are left out: those will be judged again.
    """

    def __init__(self, policy: EscalationPolicy, *, next_offset: int, max_disorder: int) -> None:
        self.labels = 0
        self.repeats = 0
        self._policy = policy
        self._next_offset = next_offset
        self._max_disorder = max_disorder
        self._held: dict[int, tuple[str, ChatFacts, JudgedMessage | None]] = {}
        self._recalled_to = -1
        self._chats: dict[str, ChatState] = {}

    def take(self, label: PublishedLabel) -> None:
        """Take the next label. Raises `ValueError`, `KeyError` or `TypeError` for one whose value is no emotion event."""
        offset = label.offset
        if offset >= self._next_offset:
            return
        if offset <= self._recalled_to or offset in self._held:
            self.repeats += 1
            return
        self._held[offset] = (label.chat_id, label.facts, label.counted_message())
        if len(self._held) >= 2 * self._max_disorder:
            self._recall(self._max_disorder)

    def chats(self) -> dict[str, ChatState]:
        """Return the chats' states after the last label taken, those silent longest first."""
        self._recall(len(self._held))
        return self._chats

    def _recall(self, count: int) -> None:
        for offset in sorted(self._held)[:count]:
            chat_id, facts, counted = self._held.pop(offset)
            state = self._chats.pop(chat_id, None) or ChatState()
            self._chats[chat_id] = recall_message(self._policy, state, facts, counted)
            self._recalled_to = offset
            self.labels += 1
