"""EmotionEvent and EscalationEvent: what the worker publishes."""

from typing import Annotated, Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field

from worker.contracts.inbound import Author

SCHEMA_VERSION = 1

EscalationReason = Literal["severe_message", "sustained"]

Probability = Annotated[float, Field(ge=0.0, le=1.0)]


class _Event(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Emotion(_Event):
    """A label whose probability reached its threshold."""

    label: str
    probability: Probability
    threshold: Probability


class ModelInfo(_Event):
    """Which model decided."""

    name: str
    version: str
    digest: str = Field(description="SHA-256 of the bundle's manifest, which holds the digests of all its files")


class Source(_Event):
    """The position of the record that an event answers."""

    topic: str
    partition: int
    offset: int


class EmotionEvent(_Event):
    """The emotions of one chat message."""

    event_id: str = Field(description="the same for the same input position, so that repeats can be dropped")
    message_id: str
    chat_id: str
    author: Author
    operator_id: str | None
    emotions: tuple[Emotion, ...] = Field(description="labels at or above their thresholds, likeliest first; may be empty")
    tone: Literal["negative", "positive", "mixed", "ambiguous", "neutral"]
    negativity: Probability = Field(
        description="how strongly the counted negative emotions speak; 0.5 is a threshold, before the weights"
    )
    model: ModelInfo
    sent_at: AwareDatetime
    classified_at: AwareDatetime
    truncated: bool = Field(description="whether the text was cut to the model's token limit")
    source: Source
    schema_version: int = SCHEMA_VERSION
    probabilities: dict[str, Probability] | None = Field(
        None, description="all 28 labels' probabilities; only when RUGO_PUBLISH_PROBABILITIES asks for them"
    )


class Evidence(_Event):
    """A message that led to an escalation."""

    message_id: str
    emotions: tuple[Emotion, ...]
    negativity: Probability
    sent_at: AwareDatetime


class EscalationEvent(_Event):
    """The client's tone turned negative: give the chat to another operator."""

    event_id: str = Field(description="the same for the same input position, so that repeats can be dropped")
    chat_id: str
    operator_id: str | None = Field(description="who serves the chat now, as far as its messages told")
    reason: EscalationReason
    severity: Probability
    evidence: tuple[Evidence, ...] = Field(description="the messages that led to it, oldest first")
    action: Literal["reassign_operator"] = "reassign_operator"
    raised_at: AwareDatetime
    model: ModelInfo
    schema_version: int = SCHEMA_VERSION
