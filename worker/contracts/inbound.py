"""ChatMessage: what a support chat publishes, one record a message."""

import re
from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import AwareDatetime, BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints

MAX_TEXT_CHARS = 8192
MAX_ID_CHARS = 128

Author = Literal["client", "operator", "bot", "system"]

_RFC3339 = re.compile(r"\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d:\d\d(\.\d+)?([Zz]|[+-]\d\d:\d\d)", re.ASCII)


def _require_rfc3339(value: Any) -> Any:
    # pydantic alone would also take numbers, dates without a time and times without seconds.
    if isinstance(value, datetime) or value is None:
        return value
    if isinstance(value, str) and _RFC3339.fullmatch(value):
        return value
    raise ValueError("must be RFC 3339 with a time zone, such as 2026-09-14T12:00:00+03:00")


def _default_author(value: Any) -> Any:
    return "client" if value is None else value


def _blank_is_absent(value: Any) -> Any:
    return None if isinstance(value, str) and not value.strip() else value


Identifier = Annotated[str, StringConstraints(min_length=1, max_length=MAX_ID_CHARS)]
MessageText = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=MAX_TEXT_CHARS)]


class ChatMessage(BaseModel):
    """One message of a support chat. Fields that are not listed here are ignored."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    message_id: Identifier = Field(description="the message's id, unique within its chat")
    chat_id: Identifier = Field(description="the chat's id; also the record's key, so that a chat keeps its order")
    text: MessageText = Field(description="what was written; surrounding white space is trimmed before the limits are checked")
    author: Annotated[Author, BeforeValidator(_default_author)] = Field("client", description="who wrote it")
    operator_id: Annotated[Identifier | None, BeforeValidator(_blank_is_absent)] = Field(
        None, description="the operator who serves the chat; blank or absent means not said"
    )
    sent_at: Annotated[AwareDatetime | None, BeforeValidator(_require_rfc3339)] = Field(
        None, description="when it was sent, RFC 3339 with a time zone; the record's timestamp if absent"
    )
    channel: str | None = Field(None, description="where it was written, such as web or telegram; not interpreted")
