"""Whether a change of a JSON Schema keeps the other side working."""

from collections.abc import Iterator
from typing import Any

Schema = dict[str, Any]

_UPPER, _LOWER = ("maximum", "maxLength", "maxItems"), ("minimum", "minLength", "minItems")


def reading_problems(old: Schema, new: Schema) -> list[str]:
    """Return why a reader of `new` would refuse, or overlook, what writers of `old` send."""
    return [*_vanished(old, new), *_not_within(_Part(old, old), _Part(new, new), "$")]


def writing_problems(old: Schema, new: Schema) -> list[str]:
    """Return why a reader of `old` would refuse, or miss, what a writer of `new` sends."""
    return [*_vanished(old, new), *_not_within(_Part(new, new), _Part(old, old), "$")]


class _Part:
    """A schema within its document, references followed."""

    def __init__(self, schema: Schema, document: Schema) -> None:
        while "$ref" in schema:
            schema = document["$defs"][schema["$ref"].rpartition("/")[2]]
        self.schema, self.document = schema, document

    def inner(self, schema: Schema) -> "_Part":
        return _Part(schema, self.document)

    def alternatives(self) -> list["_Part"]:
        return [self.inner(each) for each in self.schema.get("anyOf", [self.schema])]

    def values(self) -> set[Any] | None:
        return {self.schema["const"]} if "const" in self.schema else set(self.schema["enum"]) if "enum" in self.schema else None


def _vanished(old: Schema, new: Schema) -> Iterator[str]:
    for where, fields in {"$": old, **old.get("$defs", {})}.items():
        kept = new if where == "$" else new.get("$defs", {}).get(where, {})
        for name in fields.get("properties", {}).keys() - kept.get("properties", {}).keys():
            yield f"{where}.{name} has vanished"


def _not_within(narrow: _Part, wide: _Part, path: str) -> Iterator[str]:
    """Say where something that `narrow` allows is refused by `wide`."""
    for one in narrow.alternatives():
        reasons = [list(_plain_not_within(one, other, path)) for other in wide.alternatives()]
        if all(reasons):
            yield from min(reasons, key=len)


def _plain_not_within(narrow: _Part, wide: _Part, path: str) -> Iterator[str]:
    kind, wanted = narrow.schema.get("type"), wide.schema.get("type")
    if wanted is not None and kind != wanted and (kind, wanted) != ("integer", "number"):
        yield f"{path}: {kind} where {wanted} is expected"
        return
    yield from _value_problems(narrow, wide, path)
    for name in sorted(set(wide.schema.get("required", ())) - set(narrow.schema.get("required", ()))):
        yield f"{path}.{name} may be absent where it is required"
    for name, inner in narrow.schema.get("properties", {}).items():
        if name in wide.schema.get("properties", {}):
            yield from _not_within(narrow.inner(inner), wide.inner(wide.schema["properties"][name]), f"{path}.{name}")
        elif wide.schema.get("additionalProperties") is False:
            yield f"{path}.{name} is refused"
    for key in ("items", "additionalProperties"):
        if isinstance(wide.schema.get(key), dict):
            yield from _not_within(narrow.inner(narrow.schema.get(key, {})), wide.inner(wide.schema[key]), f"{path}[]")


def _value_problems(narrow: _Part, wide: _Part, path: str) -> Iterator[str]:
    allowed, possible = wide.values(), narrow.values()
    if allowed is not None and (possible is None or possible - allowed):
        yield f"{path}: values besides {sorted(map(str, allowed))}"
    for name in _UPPER:
        if name in wide.schema and narrow.schema.get(name, float("inf")) > wide.schema[name]:
            yield f"{path}: beyond {name} {wide.schema[name]}"
    for name in _LOWER:
        if name in wide.schema and narrow.schema.get(name, float("-inf")) < wide.schema[name]:
            yield f"{path}: below {name} {wide.schema[name]}"
    for name in ("format", "pattern"):
        if name in wide.schema and narrow.schema.get(name) != wide.schema[name]:
            yield f"{path}: {name} is not {wide.schema[name]}"
