"""What is remembered of every chat that this worker has in its care."""

from collections.abc import Collection, Hashable, Mapping

from worker.core.escalation import ChatState, EscalationDecision, EscalationPolicy, JudgedMessage, judge_message


class EscalationStates:
    """The chats' states, bounded, in two layers: settled, and of the poll in progress.

    - A poll's changes become lasting only by `keep`, once its events are confirmed; until then `discard` undoes them.
    - A chat belongs to its input partition (any hashable): when the partition is revoked, its chats are forgotten; who
      is assigned it next brings them back by `restore`.
    - Beyond `max_chats` the chats that were silent longest are forgotten, even within the policy's horizon:
      `take_crowded_out` counts those.
    """

    def __init__(self, policy: EscalationPolicy, *, max_chats: int) -> None:
        self.policy = policy
        self._crowded_out = 0
        self._max_chats = max_chats
        self._settled: dict[tuple[Hashable, str], ChatState] = {}
        self._in_progress: dict[tuple[Hashable, str], ChatState] = {}

    def __len__(self) -> int:
        return len(self._settled)

    def judge(self, partition: Hashable, chat_id: str, message: JudgedMessage) -> tuple[ChatState, EscalationDecision | None]:
        """Return the chat's state after its next message, remembered for this poll, and the decision on it."""
        key = (partition, chat_id)
        state = self._in_progress.get(key) or self._settled.get(key) or ChatState()
        self._in_progress[key], decision = judge_message(self.policy, state, message)
        return self._in_progress[key], decision

    def keep(self) -> None:
        """Make the poll's changes lasting."""
        self._settle(self._in_progress)
        self._in_progress = {}

    def take_crowded_out(self) -> int:
        """Return how many chats were forgotten within the policy's horizon since this was last asked."""
        count, self._crowded_out = self._crowded_out, 0
        return count

    def discard(self) -> None:
        """Undo the poll's changes."""
        self._in_progress = {}

    def restore(self, partition: Hashable, chats: Mapping[str, ChatState]) -> None:
        """Remember these chats of a partition, and no others of it."""
        self.forget_partitions({partition})
        self._settle({(partition, chat_id): state for chat_id, state in chats.items()})

    def forget_partitions(self, partitions: Collection[Hashable]) -> None:
        """Forget the chats of partitions that were revoked."""
        self._settled = {key: state for key, state in self._settled.items() if key[0] not in partitions}
        self._in_progress = {key: state for key, state in self._in_progress.items() if key[0] not in partitions}

    def _settle(self, states: Mapping[tuple[Hashable, str], ChatState]) -> None:
        newest_s = float("-inf")
        for key, state in states.items():
            self._settled.pop(key, None)  # put last: the dict's order is the order of silence
            self._settled[key] = state
            newest_s = max(newest_s, state.facts.heard_at_s)
        while len(self._settled) > self._max_chats:
            longest_silent = self._settled.pop(next(iter(self._settled)))
            self._crowded_out += newest_s - longest_silent.facts.heard_at_s <= self.policy.horizon_s
