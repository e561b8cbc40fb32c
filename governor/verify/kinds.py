"""The verifiers that come with Governor: name -> options and maker."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from governor.verify import code, custom, judge, maths, quantity, samples, structure, text
from governor.verify.options import Make, Options


@dataclass(frozen=True, slots=True)
class Kind:
    """One verifier: its options as they stand in YAML, and how it is made of them."""

    options: type[Options]
    make: Make
    foresees: bool = False
    """Whether one of these may foresee (governor.protocols.Foreseeing): making it then imports nothing of a user's."""


KINDS: Mapping[str, Kind] = {
    "agreement": Kind(samples.AgreementOptions, samples.agreement),
    "arithmetic": Kind(quantity.ArithmeticOptions, quantity.arithmetic),
    "callable": Kind(custom.CallableOptions, custom.callable_),
    "choice": Kind(text.ChoiceOptions, text.choice),
    "complete": Kind(text.CompleteOptions, text.complete, foresees=True),
    "confidence": Kind(samples.ConfidenceOptions, samples.confidence),
    "contains": Kind(text.ContainsOptions, text.contains, foresees=True),
    "equation": Kind(quantity.EquationOptions, quantity.equation),
    "grounded": Kind(structure.GroundedOptions, structure.grounded),
    "json_schema": Kind(structure.JsonSchemaOptions, structure.json_schema),
    "judge": Kind(judge.JudgeOptions, judge.judge),
    "maths": Kind(maths.MathsOptions, maths.maths),
    "number": Kind(quantity.NumberOptions, quantity.number),
    "pydantic": Kind(structure.PydanticOptions, structure.pydantic),
    "python_tests": Kind(code.PythonTestsOptions, code.python_tests),
    "regex": Kind(text.RegexOptions, text.regex, foresees=True),
    "tool_arguments": Kind(structure.ToolArgumentsOptions, structure.tool_arguments),
}
