"""The JSON Schema of policy files (draft 2020-12): generated from the models, never written by hand."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import Any

from governor.policy.schema import Policy

DIALECT = "https://json-schema.org/draft/2020-12/schema"

_SPECS = {"type": "array", "minItems": 1, "items": {"$ref": "#/$defs/Verify"}}
_VERIFY = {
    "title": "Verify",
    "description": "A verifier's name, {name: options}, a list (all must accept), or {all: [...]}, {any: [...]}, "
    "{then: [...]}.",
    "anyOf": [
        {"type": "string", "minLength": 1},
        _SPECS,
        {
            "type": "object",
            "minProperties": 1,
            "maxProperties": 1,
            "properties": {
                "all": {**_SPECS, "description": "Every one must accept."},
                "any": {**_SPECS, "description": "One must accept."},
                "then": {**_SPECS, "description": "In order; the first that rejects or accepts for sure ends it."},
            },
        },
        {"type": "null"},
    ],
    "examples": ["complete", {"regex": "^[0-9]+$"}, {"all": ["complete", {"json_schema": {"type": "object"}}]}],
}


@lru_cache(maxsize=1)
def policy_schema() -> dict[str, Any]:
    """The schema as plain data; shared, so not to be changed by its reader."""
    generated = Policy.model_json_schema()
    definitions = generated.pop("$defs")
    definitions["Verify"] = _VERIFY
    for owner in (generated, definitions["Rule"]):
        described = owner["properties"]["verify"]["description"]
        owner["properties"]["verify"] = {"$ref": "#/$defs/Verify", "description": described}
    return {"$schema": DIALECT, **generated, "$defs": dict(sorted(definitions.items()))}


def schema_text() -> str:
    """The schema as the file `policies/policy.schema.json` holds it."""
    return json.dumps(policy_schema(), indent=2, ensure_ascii=False) + "\n"


def keys_at(path: Sequence[str | int]) -> list[str]:
    """The keys that the mapping at `path` may have, in the schema's order."""
    found: list[dict[str, Any]] = [policy_schema()]
    for part in path:
        found = [child for node in found for option in _options(node) for child in _children(option, part)]
    return list(
        dict.fromkeys(key for node in found for option in _options(node) for key in option.get("properties", ()))
    )


def _options(node: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The schema itself, or those it refers to or chooses from."""
    if "$ref" in node:
        yield from _options(policy_schema()["$defs"][node["$ref"].rpartition("/")[2]])
    elif "properties" in node:
        yield node
    elif choices := node.get("anyOf") or node.get("oneOf"):
        for choice in choices:
            yield from _options(choice)
    else:
        yield node


def _children(option: dict[str, Any], part: str | int) -> Iterator[dict[str, Any]]:
    if isinstance(part, int):
        if isinstance(option.get("items"), dict):
            yield option["items"]
    elif part in option.get("properties", ()):
        yield option["properties"][part]
    elif isinstance(option.get("additionalProperties"), dict):
        yield option["additionalProperties"]
