"""What the AsyncAPI document says of the four topics."""

from typing import Annotated, Any

from faststream.kafka import KafkaBroker
from faststream.security import BaseSecurity
from faststream.specification import AsyncAPI
from pydantic import SkipValidation, WithJsonSchema

from worker import __version__
from worker.contracts.inbound import ChatMessage
from worker.contracts.outbound import EmotionEvent, EscalationEvent
from worker.core.records import TopicNames

# The document shows the one message that travels in a record, not the list that a poll is.
_Message = Annotated[Any, SkipValidation, WithJsonSchema(ChatMessage.model_json_schema())]


def describe_channels(addresses: str, names: TopicNames, *, security: BaseSecurity) -> AsyncAPI:
    """Return the source of the document: a broker of its own that is never started, with a handler that is never called.

    The worker reads and writes with clients that FastStream knows no message shapes of.
    """
    described = KafkaBroker(addresses.split(","), security=security)

    @described.subscriber(
        names.input,
        title="chat messages",
        description="Every message of every support chat, keyed by chat_id.",
    )
    async def read(message: _Message) -> None: ...

    described.publisher(
        names.emotions, schema=EmotionEvent, title="emotion events", description="The emotions of every message."
    )
    described.publisher(
        names.escalations, schema=EscalationEvent, title="escalation events", description="Chats to give to another operator."
    )
    described.publisher(
        names.dead_letter, schema=bytes, title="dead letters", description="What could not be read, byte for byte, and why."
    )
    return AsyncAPI(
        described,
        title="rugo-worker",
        version=__version__,
        description="Hears the client's tone in Russian support chats and tells when to change the operator.",
    )
