"""LabelState: what travels in a header of every emotion record, so that a worker can take up a chat where another left it."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from worker.contracts.outbound import Source

STATE_HEADER = "rugo.state"


class LabelState(BaseModel):
    """Where a chat stands after a message. Fields that are not listed here are ignored."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    source: Source
    timestamp_ms: int = Field(description="the timestamp of the input record")
    operator_id: str | None = Field(description="who serves the chat, as far as its messages told")
    operator_since_s: float | None = Field(description="when they took over, seconds since the epoch")
    escalated_at_s: float | None = Field(description="when the chat was last escalated under them, seconds since the epoch")
    role: Literal["ignored", "counted", "escalated"] = Field(description="what the escalation policy made of the message")
