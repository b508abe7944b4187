"""Whole chats, of which it is known whether they should escalate.

A line of their JSONL is {"chat_id", "escalates", "messages": [{"author", "text"}, ...]}.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from training.config import ConfigError


@dataclass(frozen=True, slots=True)
class WholeChat:
    """A chat's messages in order: authors beside texts."""

    chat_id: str
    escalates: bool
    authors: tuple[str, ...]
    texts: tuple[str, ...]


def read_whole_chats(path: Path) -> list[WholeChat]:
    """Read a file of chats; raises `ConfigError` where it is missing or not as described above."""
    try:
        values = [json.loads(line) for line in path.read_text("utf-8").split("\n") if line.strip()]
        chats = [_chat(value) for value in values]
    except OSError as error:
        raise ConfigError(f"can't read {path} ({error.strerror}); mend evaluation.chats in the configuration") from error
    except (ValueError, KeyError, TypeError) as error:
        raise ConfigError(f"{path} is not a file of whole chats ({error!r}); see training/corpus/chats for one") from error
    if not chats:
        raise ConfigError(f"{path} has no chats; put some there, or take it out of evaluation.chats")
    return chats


def _chat(value: dict[str, Any]) -> WholeChat:
    if not isinstance(value["escalates"], bool):
        raise TypeError("escalates must be true or false")
    return WholeChat(
        chat_id=value["chat_id"],
        escalates=value["escalates"],
        authors=tuple(each["author"] for each in value["messages"]),
        texts=tuple(each["text"] for each in value["messages"]),
    )
