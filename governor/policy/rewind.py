"""What a graph that can rewind does when a step fails for good, and what becomes of tools that were called before."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal, TypeAlias

from pydantic import BeforeValidator, ConfigDict, Field, WithJsonSchema

from governor.policy.part import Part
from governor.policy.scalars import Count, Text

_HIGHEST = 99
_UP = re.compile(r"\+[0-9]{1,2}")


def _number(value: Any) -> Any:
    """`"+1"` as 1; everything else is left to the type's own check."""
    return int(value) if isinstance(value, str) and _UP.fullmatch(value) else value


RungsUp: TypeAlias = Annotated[
    int,
    BeforeValidator(_number),
    Field(ge=0, le=_HIGHEST),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "integer", "minimum": 0, "maximum": _HIGHEST},
                {"type": "string", "pattern": f"^{_UP.pattern}$"},
            ]
        }
    ),
]
"""How many rungs higher: 1, or the text "+1"."""


class Rewind(Part):
    """The run goes back to before an earlier node and goes on from there, that node on a higher rung."""

    to: Text | None = Field(default=None, examples=["plan"])
    """Name of the node to go back to; left out beside `blame`, which finds it."""
    rung: RungsUp = Field(default=1, examples=[1, "+1"])
    """How many rungs higher that node begins than before, this time alone; 0: on the same ladder as before."""
    max: Annotated[int, Field(ge=1, le=100)] = Field(default=2, examples=[2])
    """Most rewinds of one run by this rule."""


def _one_aim(schema: dict[str, Any]) -> None:
    blamed = {"blame": {"const": "auto"}, "backtrack": {"properties": {"to": {"const": None}}}}
    somewhere = {"type": "object", "required": ["to"], "properties": {"to": {"type": "string"}}}
    schema["oneOf"] = [
        {"required": ["blame"], "properties": blamed},
        {"required": ["backtrack"], "properties": {"blame": {"const": None}, "backtrack": somewhere}},
    ]


class OnFail(Part):
    """What happens when a step fails for good, in a graph that can rewind."""

    model_config = ConfigDict(json_schema_extra=_one_aim)

    backtrack: Rewind | None = None
    """Go back to an earlier node."""
    blame: Literal["auto"] | None = Field(default=None, examples=["auto"])
    """auto: go back to the step whose posterior probability of having failed is highest for what redoing it costs.
    Instead of `backtrack.to`."""

    @property
    def rewind(self) -> Rewind:
        """How to go back, with the defaults where `blame` stands alone."""
        return self.backtrack or Rewind()


class ToolRule(Part):
    """How often a tool may be called, and what becomes of its calls when a run is rewound."""

    on_rewind: Literal["replay", "rerun", "forbid"] = Field(default="replay", examples=["forbid"])
    """When a call that was made before a rewind comes again. replay: it is not made, its result is given again;
    rerun: it is made again; forbid: it is neither, and the model is told that it may not be repeated."""
    max_calls: Count | None = Field(default=None, examples=[3])
    """Most calls in one run; left out: any number."""
