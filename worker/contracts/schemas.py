"""JSON Schemas (draft 2020-12) of what travels on the topics, made of the models that read and write it."""

from typing import Any

from pydantic import BaseModel

from worker.contracts.inbound import ChatMessage
from worker.contracts.outbound import SCHEMA_VERSION, EmotionEvent, EscalationEvent

_DRAFT = "https://json-schema.org/draft/2020-12/schema"
_ON_DEMAND = {"probabilities"}  # left out of events unless a setting asks for it

READ: dict[str, type[BaseModel]] = {"chat_message": ChatMessage}
WRITTEN: dict[str, type[BaseModel]] = {"emotion_event": EmotionEvent, "escalation_event": EscalationEvent}


def json_schemas() -> dict[str, dict[str, Any]]:
    """Return the schema of each kind of value by its name.

    What the worker reads is described as producers may write it. What it writes is described as consumers get it: a field that
    is always there is required, and fields of later versions are allowed, so that a consumer that validates goes on working.
    """
    schemas = {name: model.model_json_schema(mode="validation") for name, model in READ.items()}
    schemas |= {name: _open(model.model_json_schema(mode="serialization")) for name, model in WRITTEN.items()}
    return {name: {"$schema": _DRAFT, "$id": f"{name}.v{SCHEMA_VERSION}", **schema} for name, schema in schemas.items()}


def _open(schema: dict[str, Any]) -> dict[str, Any]:
    for each in (schema, *schema.get("$defs", {}).values()):
        each.pop("additionalProperties", None)
        each["required"] = [name for name in each["properties"] if name not in _ON_DEMAND]
    return schema
