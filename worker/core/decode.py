"""From a record to a chat message, each record on its own; what can't be read is a value, never an exception."""

from pydantic import ValidationError

from worker.contracts.inbound import ChatMessage
from worker.core.records import Decoded, Record, Rejected

_MAX_ERRORS_NAMED = 5


def decode_record(record: Record) -> Decoded | Rejected:
    """Return the record's chat message, or why it is none."""
    if record.value is None:
        return Rejected(record, "tombstone", "the record has no value")
    try:
        return Decoded(record, ChatMessage.model_validate_json(record.value))
    except ValidationError as error:
        return _rejected(record, error)
    except RecursionError:
        return Rejected(record, "not_json", "nested too deeply")


def _rejected(record: Record, error: ValidationError) -> Rejected:
    # The input is left out: a message's text must not travel in error texts.
    problems = error.errors(include_url=False, include_context=False, include_input=False)
    if problems[0]["type"] == "json_invalid":
        return Rejected(record, "not_json", problems[0]["msg"])
    named = [f"{'.'.join(str(part) for part in each['loc']) or 'value'}: {each['msg']}" for each in problems]
    more = f" (and {len(named) - _MAX_ERRORS_NAMED} more)" if len(named) > _MAX_ERRORS_NAMED else ""
    return Rejected(record, "schema", "; ".join(named[:_MAX_ERRORS_NAMED]) + more)
