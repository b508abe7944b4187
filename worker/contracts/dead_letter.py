"""Dead letters: the original record byte for byte, and headers that say where it was and why it was refused."""

from typing import Literal

RejectionReason = Literal["tombstone", "not_json", "schema", "poison"]

# What each reason means, for the docs and for whoever reads the dead-letter topic.
REJECTION_REASONS: dict[RejectionReason, str] = {
    "tombstone": "the record has no value",
    "not_json": "the value is not UTF-8 JSON",
    "schema": "the JSON is not a ChatMessage; dlq.error names the field",
    "poison": "the model fails on this text, alone, while it answers others",
}

PREFIX = "dlq."  # headers that begin so are the worker's
REASON = "dlq.reason"
ERROR = "dlq.error"
TOPIC = "dlq.topic"
PARTITION = "dlq.partition"
OFFSET = "dlq.offset"
TIMESTAMP = "dlq.timestamp"
WORKER_VERSION = "dlq.worker_version"
REDRIVEN_FROM = "dlq.redriven_from"  # on the record that `dlq redrive` sends back: the dead letter's position
