"""When a chat is given to another operator: the policy, what is remembered of a chat, and the verdict on a message.

Everything here is a pure function of the chat's own messages: how records were batched, when they were processed and what
other chats said makes no difference.
"""

import math
import tomllib
from collections.abc import Collection, Hashable
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from worker.contracts.inbound import Author
from worker.core.failures import ConfigurationError
from worker.core.labels import NEGATIVE
from worker.core.scoring import LabelProbability

Fraction = Annotated[float, Field(ge=0.0, le=1.0)]
Seconds = Annotated[float, Field(gt=0.0)]

_SEEN_MESSAGES = 64  # ids remembered a chat, to know a duplicate by


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class SevereMessageRule(_Section):
    """One clearly hostile message."""

    min_negativity: Fraction


class SustainedRule(_Section):
    """A decaying sum over the chat's recent client messages."""

    min_score: Annotated[float, Field(gt=0.0)]
    min_messages: Annotated[int, Field(ge=1)]
    min_negativity: Fraction
    message_decay: Annotated[float, Field(gt=0.0, le=1.0)]
    half_life_s: Seconds
    window_s: Seconds
    max_messages: Annotated[int, Field(ge=1, le=_SEEN_MESSAGES)]


class EscalationPolicy(_Section):
    """The escalation policy; its file explains every number."""

    weights: dict[str, Fraction]
    severe_message: SevereMessageRule
    sustained: SustainedRule
    cooldown_s: Annotated[float, Field(ge=0.0)]

    @field_validator("weights")
    @classmethod
    def _only_negative_emotions(cls, weights: dict[str, float]) -> dict[str, float]:
        if unknown := sorted(set(weights) - NEGATIVE):
            raise ValueError(f"not a negative label: {', '.join(unknown)}; choose from {', '.join(sorted(NEGATIVE))}")
        if not any(weights.values()):
            raise ValueError("at least one emotion must have a weight above 0")
        return weights


def parse_escalation_policy(toml_text: str, *, source: str) -> EscalationPolicy:
    """Return the policy that a TOML text describes; `source` names it in the error. Raises `ConfigurationError`."""
    try:
        return EscalationPolicy.model_validate(tomllib.loads(toml_text))
    except tomllib.TOMLDecodeError as error:
        raise ConfigurationError(f"escalation policy {source} is not TOML: {error}") from error
    except ValidationError as error:
        problems = "; ".join(
            f"{'.'.join(str(part) for part in each['loc'])}: {each['msg']}" for each in error.errors(include_url=False)
        )
        raise ConfigurationError(f"escalation policy {source}: {problems}") from error


@dataclass(frozen=True, slots=True)
class JudgedMessage:
    """A message of a chat with its labels and negativity.

    `sent_at` is what the message says; `sent_at_s`, seconds since the epoch, is what the policy goes by.
    """

    message_id: str
    author: Author
    operator_id: str | None
    sent_at: datetime
    sent_at_s: float
    emotions: tuple[LabelProbability, ...]
    negativity: float


@dataclass(frozen=True, slots=True)
class ChatState:
    """What is remembered of one chat. Messages are kept oldest first, by when they were sent."""

    operator_id: str | None = None
    operator_since_s: float = float("-inf")
    recent: tuple[JudgedMessage, ...] = ()
    seen_ids: tuple[str, ...] = ()
    escalated_at_s: float = float("-inf")


@dataclass(frozen=True, slots=True)
class EscalationDecision:
    """The verdict that a chat be given to another operator. Evidence is oldest first."""

    operator_id: str | None
    reason: Literal["severe_message", "sustained"]
    severity: float
    evidence: tuple[JudgedMessage, ...]


def judge_message(
    policy: EscalationPolicy, state: ChatState, message: JudgedMessage
) -> tuple[ChatState, EscalationDecision | None]:
    """Return what is remembered after this message, and the decision to escalate if there is one.

    A message from before the present operator took over is late: it neither brings the old operator back nor counts
    against the new one. A message id that was seen counts once.
    """
    state = _with_operator(state, message)
    is_late = message.sent_at_s < state.operator_since_s
    if message.author != "client" or is_late or message.message_id in state.seen_ids:
        return state, None
    state = _remember(policy, state, message)
    if message.sent_at_s - state.escalated_at_s < policy.cooldown_s:
        return state, None
    decision = _decide(policy, state, message)
    if decision is not None:
        state = replace(state, recent=(), escalated_at_s=message.sent_at_s)
    return state, decision


def _with_operator(state: ChatState, message: JudgedMessage) -> ChatState:
    named = message.operator_id
    if named is None or named == state.operator_id or message.sent_at_s < state.operator_since_s:
        return state
    return ChatState(operator_id=named, operator_since_s=message.sent_at_s, seen_ids=state.seen_ids)


def _remember(policy: EscalationPolicy, state: ChatState, message: JudgedMessage) -> ChatState:
    ordered = sorted((*state.recent, message), key=lambda each: each.sent_at_s)
    oldest_s = ordered[-1].sent_at_s - policy.sustained.window_s
    recent = tuple(each for each in ordered if each.sent_at_s >= oldest_s)[-policy.sustained.max_messages :]
    return replace(state, recent=recent, seen_ids=(*state.seen_ids, message.message_id)[-_SEEN_MESSAGES:])


def _decide(policy: EscalationPolicy, state: ChatState, message: JudgedMessage) -> EscalationDecision | None:
    if message.negativity >= policy.severe_message.min_negativity:
        return EscalationDecision(state.operator_id, "severe_message", message.negativity, (message,))
    rule = policy.sustained
    if message.negativity < rule.min_negativity:
        return None
    counted = tuple(each for each in state.recent if each.negativity >= rule.min_negativity)
    score = sustained_score(rule, state.recent)
    if len(counted) < rule.min_messages or score < rule.min_score:
        return None
    return EscalationDecision(state.operator_id, "sustained", _severity_of_score(rule, score), counted)


def sustained_score(rule: SustainedRule, recent: tuple[JudgedMessage, ...]) -> float:
    """Return the decaying sum over a chat's recent client messages, given oldest first.

    A message's negativity fades by `message_decay` with every later client message and halves every `half_life_s`;
    messages under `min_negativity` add nothing, but make the others fade.
    """
    score = 0.0
    for rank, each in enumerate(reversed(recent)):
        if each.negativity >= rule.min_negativity:
            age_s = recent[-1].sent_at_s - each.sent_at_s
            score += each.negativity * math.pow(rule.message_decay, rank) * math.pow(0.5, age_s / rule.half_life_s)
    return score


def _severity_of_score(rule: SustainedRule, score: float) -> float:
    # 0.5 where the rule begins to hold, toward 1 as the score grows.
    return round(1.0 - math.pow(0.5, score / rule.min_score), 4)


class EscalationStates:
    """What is remembered of every chat, bounded, in two layers: settled, and of the poll in progress.

    - A poll's changes become lasting only by `keep`, once its events are confirmed; until then `discard` undoes them.
    - A chat belongs to its input partition (any hashable): when the partition is revoked, its chats are forgotten.
    - Beyond `max_chats` the chats that were silent longest are forgotten.
    """

    def __init__(self, policy: EscalationPolicy, *, max_chats: int) -> None:
        self.policy = policy
        self._max_chats = max_chats
        self._settled: dict[tuple[Hashable, str], ChatState] = {}
        self._in_progress: dict[tuple[Hashable, str], ChatState] = {}

    def __len__(self) -> int:
        return len(self._settled)

    def judge(self, partition: Hashable, chat_id: str, message: JudgedMessage) -> EscalationDecision | None:
        """Return the decision on the chat's next message and remember it for this poll."""
        key = (partition, chat_id)
        state = self._in_progress.get(key) or self._settled.get(key) or ChatState()
        self._in_progress[key], decision = judge_message(self.policy, state, message)
        return decision

    def keep(self) -> None:
        """Make the poll's changes lasting."""
        for key, state in self._in_progress.items():
            self._settled.pop(key, None)  # put last: the dict's order is the order of silence
            self._settled[key] = state
        self._in_progress = {}
        while len(self._settled) > self._max_chats:
            del self._settled[next(iter(self._settled))]

    def discard(self) -> None:
        """Undo the poll's changes."""
        self._in_progress = {}

    def forget_partitions(self, partitions: Collection[Hashable]) -> None:
        """Forget the chats of partitions that were revoked."""
        self._settled = {key: state for key, state in self._settled.items() if key[0] not in partitions}
        self._in_progress = {key: state for key, state in self._in_progress.items() if key[0] not in partitions}
