"""Checks of structured answers: JSON schema, pydantic models, tool-call arguments, values grounded in the prompt."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field, TypeAdapter, ValidationError, field_validator

from governor.errors import VerifierError
from governor.records import Reply, Step, ToolCall, Verdict, text_of
from governor.verify import answer
from governor.verify.leaf import Leaf, accept, decided, pure, reject, shortened, unsure
from governor.verify.options import Options, Place, Rates, Site, leaf, load

if TYPE_CHECKING:
    from jsonschema.protocols import Validator

_MOST_ERRORS = 3
_NO_JSON = "The answer holds no JSON value that can be read. Answer with JSON alone, without comments."


class JsonSchemaOptions(Options):
    """`schema` is a JSON Schema, or `from_step` for the step's own response schema."""

    shorthand: ClassVar[str] = "schema"
    wanted: Any = Field(alias="schema")

    @field_validator("wanted")
    @classmethod
    def _is_schema(cls, wanted: Any) -> Any:
        if wanted == "from_step":
            return wanted
        if not isinstance(wanted, Mapping):
            raise ValueError("write a JSON Schema as a mapping, or from_step")
        try:
            validator(wanted)
        except VerifierError as cause:
            raise ValueError(str(cause)) from cause
        return wanted


def json_schema(options: JsonSchemaOptions, site: Site) -> Leaf:
    """Accepts a reply that holds a JSON value which the schema allows."""
    fixed = None if options.wanted == "from_step" else validator(options.wanted)

    def check(step: Step, reply: Reply) -> Verdict:
        if fixed is None and step.response_schema is None:
            return unsure("the step states no response schema")
        found = answer.find_json(reply.text)
        if found is None:
            return reject("format", _NO_JSON)
        errors = schema_errors(fixed or validator(step.response_schema or {}), found.value)
        return decided(not errors, "format", "; ".join(errors))

    return leaf("json_schema", options, Rates(0.99, 0.5), pure(check), site)


def validator(schema: Mapping[str, Any]) -> Validator:
    """A validator of the schema's own draft that never fetches a reference; VerifierError if it is no schema."""
    from jsonschema import Draft202012Validator, SchemaError
    from jsonschema.validators import validator_for
    from referencing.jsonschema import EMPTY_REGISTRY

    kind = validator_for(dict(schema), default=Draft202012Validator)
    try:
        kind.check_schema(dict(schema))
    except SchemaError as cause:
        raise VerifierError(f"not a JSON Schema: {cause.json_path}: {shortened(cause.message, 200)}") from cause
    return kind(dict(schema), registry=EMPTY_REGISTRY)


def schema_errors(checker: Validator, value: Any) -> list[str]:
    """At most three lines "path: message", shallowest first; empty when the value is allowed."""
    errors = sorted(checker.iter_errors(value), key=lambda error: (len(error.absolute_path), error.json_path))
    return [f"{error.json_path}: {shortened(error.message, 200)}" for error in errors[:_MOST_ERRORS]]


class PydanticOptions(Options):
    """`model` is `package.module:Model`, a pydantic model or any type that pydantic can validate."""

    shorthand: ClassVar[str] = "model"
    model: Place


def pydantic(options: PydanticOptions, site: Site) -> Leaf:
    """Accepts a reply that holds JSON which the model validates."""
    adapter: TypeAdapter[Any] = TypeAdapter(load(options.model))

    def check(step: Step, reply: Reply) -> Verdict:
        del step
        found = answer.find_json(reply.text)
        if found is None:
            return reject("format", _NO_JSON)
        try:
            adapter.validate_json(json.dumps(found.value))
        except ValidationError as cause:
            return reject("format", "; ".join(model_errors(cause)))
        return accept()

    return leaf("pydantic", options, Rates(0.99, 0.5), pure(check), site)


def model_errors(cause: ValidationError) -> list[str]:
    """At most three lines "path: message"."""
    errors = cause.errors(include_url=False, include_context=False, include_input=False)[:_MOST_ERRORS]
    return [f"{'.'.join(map(str, error['loc'])) or 'value'}: {error['msg']}" for error in errors]


class ToolArgumentsOptions(Options):
    """`required: true` rejects a reply that calls no tool, `left` one that calls a tool more often than it says.

    Without `whole` a stream's text is shown before the tool calls after it are judged.
    """

    shorthand: ClassVar[str] = "required"
    required: bool = False
    left: Mapping[str, int] = Field(default_factory=dict[str, int])
    whole: bool = True


def tool_arguments(options: ToolArgumentsOptions, site: Site) -> Leaf:
    """Accepts a reply each of whose tool calls names an offered tool and fits its parameters."""

    def check(step: Step, reply: Reply) -> Verdict:
        offered = dict(_parameters(step.tools))
        if options.required and not reply.tool_calls:
            return reject("format", f"Call one of the tools: {', '.join(sorted(offered)) or 'none is offered'}")
        errors = [error for call in reply.tool_calls for error in _call_errors(call, offered)]
        errors += _too_many(reply.tool_calls, options.left)
        return decided(not errors, "format", "; ".join(errors[:_MOST_ERRORS]))

    whole = options.whole or options.required
    return leaf("tool_arguments", options, Rates(0.99, 0.6), pure(check), site, needs_whole_answer=whole)


def _too_many(calls: Iterable[ToolCall], left: Mapping[str, int]) -> Iterator[str]:
    """Each tool that is called more often than it may be."""
    for name, asked in Counter(call.name for call in calls).items():
        if asked > left.get(name, asked):
            yield f"the tool {name} may be called {left[name]} more times, not {asked}"


def _parameters(tools: Iterable[Mapping[str, Any]]) -> Iterator[tuple[str, Mapping[str, Any] | None]]:
    """Name and parameter schema of each offered tool, in the OpenAI or the Anthropic shape.

    Of a kind that has no schema, as a custom tool, None: it is given free text. A tool without a name goes by its kind.
    """
    for tool in tools:
        kind = tool.get("type") or "function"
        spec = tool.get("function") or tool.get("custom") or tool
        free: Mapping[str, Any] | None = {} if kind == "function" else None
        yield str(spec.get("name") or kind), spec.get("parameters") or spec.get("input_schema") or free


def _call_errors(call: ToolCall, offered: Mapping[str, Mapping[str, Any] | None]) -> list[str]:
    if call.name not in offered:
        return [f"there is no tool '{shortened(call.name, 60)}', only: {', '.join(sorted(offered)) or 'none'}"]
    schema, found = offered[call.name], answer.strict_json(call.arguments or "{}")
    if schema is None:
        return []
    if found is None:
        return [f"the arguments of {call.name} are not valid JSON"]
    if not isinstance(found.value, dict):
        return [f"the arguments of {call.name} must be a JSON object"]
    return [f"{call.name}: {error}" for error in schema_errors(validator(schema), found.value)]


class GroundedOptions(Options):
    """`ignore` names keys whose values need not come from the prompt."""

    shorthand: ClassVar[str] = "ignore"
    ignore: tuple[str, ...] = Field(default=(), strict=False)


def grounded(options: GroundedOptions, site: Site) -> Leaf:
    """Accepts a JSON answer all of whose texts and numbers occur in what the model was given."""

    def check(step: Step, reply: Reply) -> Verdict:
        found = answer.find_json(reply.text)
        if found is None:
            return reject("format", _NO_JSON)
        given = "\n".join(text_of(message) for message in step.messages if message.get("role") != "assistant")
        strange = _ungrounded(found.value, given, frozenset(options.ignore))
        feedback = f"These values do not occur in the text: {', '.join(strange[:_MOST_ERRORS])}"
        return decided(not strange, "wrong", feedback)

    return leaf("grounded", options, Rates(0.95, 0.3), pure(check), site)


def _ungrounded(value: Any, given: str, ignore: frozenset[str]) -> list[str]:
    text, figures = answer.normal(given), set(answer.numbers(given))
    return [
        shortened(f"{path}: {item!r}", 120)
        for path, item in _values("$", value, ignore)
        if not (_occurs(item, text) if isinstance(item, str) else bool(set(answer.numbers(str(item))) & figures))
    ]


def _occurs(item: str, text: str) -> bool:
    """Whether `item` stands in the text as words of its own; ideographs are words each."""
    wanted = answer.normal(item)
    if not wanted:
        return True
    left = r"(?<![^\W\u3040-\u9fff])" if wanted[0].isalnum() else ""
    right = r"(?![^\W\u3040-\u9fff])" if wanted[-1].isalnum() else ""
    return re.search(left + re.escape(wanted) + right, text) is not None


def _values(path: str, value: Any, ignore: frozenset[str]) -> Iterator[tuple[str, Any]]:
    """Texts and numbers at the leaves; truth values and null claim nothing that could be looked up."""
    if isinstance(value, Mapping):
        for key, item in value.items():
            if key not in ignore:
                yield from _values(f"{path}.{key}", item, ignore)
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from _values(f"{path}[{index}]", item, ignore)
    elif isinstance(value, str | int | float) and not isinstance(value, bool):
        yield path, value
