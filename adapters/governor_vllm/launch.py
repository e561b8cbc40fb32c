"""The exact `vllm serve` command that makes a server Governor can steer."""

from __future__ import annotations

import json
import os
import shlex
import sys
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from hashlib import sha256
from importlib.util import find_spec
from itertools import pairwise, takewhile
from pathlib import Path
from shutil import which
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from governor_vllm.families import family_of

_PROCESSORS = "--logits-processors"
_OWN = "--additional-config"
_SHARED = ("site-packages", "dist-packages")
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
    """The command for a model. What `arguments`, or the `--config` file they name, state is not stated again.

    Processors that these name stay, with Governor's behind them. It is named on the command line and not installed as
    an entry point: that would load it into every vLLM process, and on vLLM's first runner it would see no token ids
    under asynchronous scheduling.
    """
    family = family_of(model)
    config = _config(arguments)
    arguments = _with_processor(arguments, config)
    wanted: list[tuple[str, ...]] = []
    if family is not None and family.reasoning:
        wanted.append(("--reasoning-parser", family.reasoning))
    if family is not None and family.tools:
        wanted += [("--enable-auto-tool-choice",), ("--tool-call-parser", family.tools)]
    if family is not None and family.marks:
        wanted.append((_OWN, _marks(family.marks)))
    wanted += [("--enable-prompt-tokens-details",), ("--scheduling-policy", "priority")]
    stated = {*map(_option, arguments), *config}
    added = [word for option in wanted if option[0] not in stated for word in option]
    return Launch((program, "serve", model, *added, *arguments), _paths(program), tuple(_notes(model, stated)))


def program() -> str | None:
    """The `vllm` command: the one beside this Python, else the first on the path; None where there is none."""
    beside = Path(sys.executable).parent / "vllm"
    return str(beside) if os.access(beside, os.X_OK) else which("vllm")


def _option(word: str) -> str:
    """The option that a word states, as `--reasoning_config.x=y` and `--no-reasoning-config` do; empty for a value."""
    if not word.startswith("--"):
        return ""
    name = word.partition("=")[0].partition(".")[0].removeprefix("--").replace("_", "-")
    return f"--{name.removeprefix('no-')}"


def _config(arguments: Sequence[str]) -> Mapping[str, Any]:
    """What vLLM's configuration file states, by option; nothing where it can't be read, of which vLLM tells."""
    named = next((path for word, path in pairwise(arguments) if word == "--config"), None)
    if named is None:
        return {}
    reader = YAML(typ="safe", pure=True)
    reader.allow_duplicate_keys = True
    try:
        held = reader.load(Path(named))
    except (OSError, ValueError, YAMLError):
        return {}
    return {_option(f"--{key}"): value for key, value in held.items()} if isinstance(held, Mapping) else {}


def _with_processor(arguments: Sequence[str], config: Mapping[str, Any]) -> tuple[str, ...]:
    """The arguments with Governor's processor behind those that they, or else the file, name.

    Of several lists vLLM takes the last one, of both places the arguments'.
    """
    at = max((place for place, word in enumerate(arguments) if _option(word) == _PROCESSORS), default=None)
    if at is None:
        held = config.get(_PROCESSORS) or ()
        named = [str(one) for one in held] if isinstance(held, Sequence) and not isinstance(held, str) else [str(held)]
        return (_PROCESSORS, *dict.fromkeys([*named, PROCESSOR]), *arguments)
    _, stated, value = arguments[at].partition("=")
    behind = arguments[at + 1 :]
    values = [] if stated else [*takewhile(lambda word: not word.startswith("-"), behind)]
    named = [value] if stated else values
    return (*arguments[:at], _PROCESSORS, *dict.fromkeys([*named, PROCESSOR]), *behind[len(values) :])


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
    folders = [str(_folder(Path(spec.origin).parent)) for spec in specs if spec is not None and spec.origin]
    before = os.environ.get("PYTHONPATH")
    return {"PYTHONPATH": os.pathsep.join(dict.fromkeys([*folders, *([before] if before else [])]))}


def _folder(package: Path) -> Path:
    """The folder in which a package lies: where others of its environment do too, one that holds a link to it alone.

    vLLM would take theirs before its own. They do come first where no folder can be made.
    """
    if package.parent.name not in _SHARED:
        return package.parent
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    folder = home / "compute-governor" / "serve" / sha256(os.fsencode(package)).hexdigest()[:16]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with suppress(FileExistsError):
            (folder / package.name).symlink_to(package)
    except OSError:
        return package.parent
    return folder
