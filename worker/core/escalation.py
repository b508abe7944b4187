"""When a chat is given to another operator: the policy, what is remembered of a chat, and the verdict on a message.

Everything here is a pure function of the chat's own messages: how records were batched, when they were processed and what
other chats said makes no difference. And of a bounded stretch of them: what lies more than the policy's horizon back, by the
records' timestamps, is forgotten, so that a chat's memory can be rebuilt from the labels published since (`recall_message`).
"""

import math
import tomllib
from dataclasses import dataclass, replace
from datetime import datetime
from functools import cached_property
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

    @cached_property
    def horizon_s(self) -> float:
        """How far back a chat is remembered, by its records' timestamps."""
        return max(self.cooldown_s, self.sustained.window_s)

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

    `sent_at` is what the message says; `sent_at_s`, seconds since the epoch, is what the policy goes by; `recorded_at_s` is
    its record's timestamp, by which it will be forgotten.
    """

    message_id: str
    author: Author
    operator_id: str | None
    sent_at: datetime
    sent_at_s: float
    recorded_at_s: float
    emotions: tuple[LabelProbability, ...]
    negativity: float


# What the policy made of a message: nothing; one of the messages it goes by; the one that it escalated on.
Role = Literal["ignored", "counted", "escalated"]


@dataclass(frozen=True, slots=True)
class ChatFacts:
    """Where a chat stands after its newest message: the part of its memory that can be older than the horizon."""

    operator_id: str | None = None
    operator_since_s: float = float("-inf")
    escalated_at_s: float = float("-inf")
    heard_at_s: float = float("-inf")
    role: Role = "ignored"


@dataclass(frozen=True, slots=True)
class ChatState:
    """What is remembered of one chat: facts, and counted messages in the order in which they came.

    - `recent`: since the operator took over and the last escalation, within the policy's window.
    - `seen`: ids within the horizon with their records' timestamps, to know a duplicate by.
    """

    facts: ChatFacts = ChatFacts()
    recent: tuple[JudgedMessage, ...] = ()
    seen: tuple[tuple[str, float], ...] = ()


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
    """Return the chat's state after this message, and the decision to escalate if there is one.

    A message from before the present operator took over is late: it neither brings the old operator back nor counts
    against the new one. A message id that was seen counts once. A chat that was silent beyond the horizon starts afresh.
    """
    state = _with_operator(_within_horizon(policy, state, message.recorded_at_s), message)
    is_late = message.sent_at_s < state.facts.operator_since_s
    if message.author != "client" or is_late or any(seen_id == message.message_id for seen_id, _ in state.seen):
        return state, None
    state = _remember(policy, state, message, facts=replace(state.facts, role="counted"))
    if message.sent_at_s - state.facts.escalated_at_s < policy.cooldown_s:
        return state, None
    decision = _decide(policy, state, message)
    if decision is not None:
        facts = replace(state.facts, escalated_at_s=message.sent_at_s, role="escalated")
        state = ChatState(facts, seen=state.seen)
    return state, decision


def recall_message(policy: EscalationPolicy, state: ChatState, facts: ChatFacts, counted: JudgedMessage | None) -> ChatState:
    """Return the chat's state after a message that was judged before: `facts` are those of its judgement, taken as they are.

    `counted` is the message where its role says that it counted. Recalling a chat's messages from any point on gives a state
    that decides as the one that was lost, on every message recorded more than the horizon after those left out.
    """
    state = _within_horizon(policy, state, facts.heard_at_s)
    if facts.operator_id != state.facts.operator_id:
        state = ChatState(seen=state.seen)
    if counted is not None:
        state = _remember(policy, state, counted, facts=facts)
    return ChatState(facts, recent=() if facts.role == "escalated" else state.recent, seen=state.seen)


def _within_horizon(policy: EscalationPolicy, state: ChatState, now_s: float) -> ChatState:
    """Return what a record of this timestamp still finds of the chat."""
    horizon_s, window_s = policy.horizon_s, policy.sustained.window_s
    if now_s - state.facts.heard_at_s > horizon_s:
        return ChatState()
    if not state.seen:
        return state
    return ChatState(
        state.facts,
        recent=tuple([each for each in state.recent if now_s - each.recorded_at_s <= window_s]),
        seen=tuple([each for each in state.seen if now_s - each[1] <= horizon_s]),
    )


def _with_operator(state: ChatState, message: JudgedMessage) -> ChatState:
    named, facts = message.operator_id, state.facts
    if named is None or named == facts.operator_id or message.sent_at_s < facts.operator_since_s:
        return replace(state, facts=replace(facts, heard_at_s=message.recorded_at_s, role="ignored"))
    taken_over = ChatFacts(operator_id=named, operator_since_s=message.sent_at_s, heard_at_s=message.recorded_at_s)
    return ChatState(taken_over, seen=state.seen)


def _remember(policy: EscalationPolicy, state: ChatState, message: JudgedMessage, *, facts: ChatFacts) -> ChatState:
    # The caps go by the order of arrival, and nothing is dropped for being sent before another message: what the horizon
    # will forget must never have pushed out what it keeps.
    return ChatState(
        facts,
        recent=(*state.recent, message)[-policy.sustained.max_messages :],
        seen=(*state.seen, (message.message_id, message.recorded_at_s))[-_SEEN_MESSAGES:],
    )


def _recent_by_time(rule: SustainedRule, state: ChatState) -> tuple[JudgedMessage, ...]:
    ordered = sorted(state.recent, key=lambda each: each.sent_at_s)
    oldest_s = ordered[-1].sent_at_s - rule.window_s
    return tuple(each for each in ordered if each.sent_at_s >= oldest_s)


def _decide(policy: EscalationPolicy, state: ChatState, message: JudgedMessage) -> EscalationDecision | None:
    if message.negativity >= policy.severe_message.min_negativity:
        return EscalationDecision(state.facts.operator_id, "severe_message", message.negativity, (message,))
    rule = policy.sustained
    if message.negativity < rule.min_negativity:
        return None
    recent = _recent_by_time(rule, state)
    counted = tuple(each for each in recent if each.negativity >= rule.min_negativity)
    score = sustained_score(rule, recent)
    if len(counted) < rule.min_messages or score < rule.min_score:
        return None
    return EscalationDecision(state.facts.operator_id, "sustained", _severity_of_score(rule, score), counted)


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
