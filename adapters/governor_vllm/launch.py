"""The exact `vllm serve` command that makes a server Governor can steer."""

from __future__ import annotations

import json
import os
import shlex
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from shutil import which

from governor_vllm.families import family_of

_OWN = "--additional-config"
PROCESSOR = "governor_vllm.processor:GovernorLogitsProcessor"


@dataclass(frozen=True, slots=True)
class Launch:
    """A command, what it needs in its environment beside what is there, and what there is to say of it."""

    command: tuple[str, ...]
    environment: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def __str__(self) -> str:
        """The command as a shell takes it."""
        settings = [f"{name}={shlex.quote(value)}" for name, value in self.environment.items()]
        return " ".join([*settings, shlex.join(self.command)])


def launch(model: str, arguments: Sequence[str] = (), *, program: str = "vllm") -> Launch:
    """The command for a model. What `arguments` state themselves is not stated again.

    The processor is named on the command line and not installed as an entry point: that would load it into every vLLM
    process, and on vLLM's first runner it would see no token ids under asynchronous scheduling.
    """
    family = family_of(model)
    wanted: list[tuple[str, ...]] = [("--logits-processors", PROCESSOR)]
    if family is not None and family.reasoning:
        wanted.append(("--reasoning-parser", family.reasoning))
    if family is not None and family.tools:
        wanted += [("--enable-auto-tool-choice",), ("--tool-call-parser", family.tools)]
    if family is not None and family.marks:
        wanted.append((_OWN, _marks(family.marks)))
    wanted += [("--enable-prompt-tokens-details",), ("--scheduling-policy", "priority")]
    stated = set(_stated(arguments))
    added = [word for option in wanted if option[0] not in stated for word in option]
    return Launch((program, "serve", model, *added, *arguments), _paths(program), tuple(_notes(model, stated)))


def program() -> str | None:
    """The `vllm` command: the one beside this Python, else the first on the path; None where there is none."""
    beside = Path(sys.executable).parent / "vllm"
    return str(beside) if os.access(beside, os.X_OK) else which("vllm")


def _stated(arguments: Iterable[str]) -> Iterable[str]:
    return (word.partition("=")[0].replace("_", "-") for word in arguments if word.startswith("--"))


def _notes(model: str, stated: set[str]) -> Iterable[str]:
    family = family_of(model)
    if family is not None and family.marks and _OWN in stated:
        yield f"{_OWN} is yours: the processor needs {_marks(family.marks)} in it"
    if family is None and not {"--reasoning-parser", "--reasoning-config"} & stated:
        yield (
            f"no family is known for '{model}': if it thinks, give --reasoning-parser,"
            ' or --reasoning-config \'{"reasoning_start_str": "<think>", "reasoning_end_str": "</think>"}\''
        )


def _marks(marks: tuple[str, str]) -> str:
    """How the processor is told them."""
    return json.dumps({"governor": dict(zip(("start", "end"), marks, strict=True))})


def _paths(program: str) -> dict[str, str]:
    """Where a vLLM of another environment finds the processor: the folders of the two packages."""
    if Path(program).parent in (Path(), Path(sys.executable).parent):
        return {}
    specs = [find_spec(name) for name in ("governor_vllm", "governor")]
    folders = [str(Path(spec.origin).parent.parent) for spec in specs if spec is not None and spec.origin]
    before = os.environ.get("PYTHONPATH")
    return {"PYTHONPATH": os.pathsep.join(dict.fromkeys([*folders, *([before] if before else [])]))}
