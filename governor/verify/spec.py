"""Reads verifier specs, as they stand in YAML and in tasks, into a tree, collecting every mistake on the way.

    spec = name | {name: options} | {name: short, option: value, ...} | [spec, ...] | {all|any|then: [spec, ...]}

A list means `all`. `short` is the value of the verifier's main option (the pattern of `regex`, say).
"""

from __future__ import annotations

import difflib
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypeAlias

from pydantic import ValidationError

from governor.verify import custom
from governor.verify.combine import How
from governor.verify.kinds import KINDS
from governor.verify.options import Options

Path: TypeAlias = tuple[str | int, ...]

GROUPS: tuple[How, ...] = ("all", "any", "then")
_MOST_DEPTH = 32


class SpecProblem(NamedTuple):
    """One mistake in a spec: the keys and positions that lead to it, what is wrong, how to mend it."""

    path: Path
    message: str
    hint: str


@dataclass(frozen=True, slots=True)
class Single:
    """One verifier with its checked options; those of a third party's are kept as they are."""

    name: str
    options: Options | Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Group:
    """Members to combine."""

    how: How
    members: tuple[Node, ...]


Node: TypeAlias = Single | Group


@dataclass(slots=True)
class SpecReader:
    """Reads specs; `problems` grows with each mistake. `rungs` None leaves the names of judge rungs unchecked."""

    rungs: Collection[str] | None = None
    problems: list[SpecProblem] = field(default_factory=list[SpecProblem])

    def read(self, spec: Any, path: Path = ()) -> Node | None:
        """The tree of a spec; None when it is empty, or wrong as a whole."""
        if len(path) > _MOST_DEPTH:
            return self._wrong(path, "nested too deeply", "simplify it")
        match spec:
            case None:
                return None
            case str():
                return self._single(spec, {}, path, {})
            case Mapping() if spec:
                return self._mapping(spec, path)
            case Sequence() if not isinstance(spec, bytes):
                return self._group("all", spec, path) if spec else None
            case _:
                return self._wrong(path, f"a verifier is needed, not {spec!r}", "write a name or a mapping")

    def _mapping(self, spec: Mapping[Any, Any], path: Path) -> Node | None:
        heads = [key for key in spec if key in GROUPS or key in known()]
        if len(heads) > 1:
            shown = " and ".join(map(str, heads))
            return self._wrong(path, f"one verifier a mapping, not {shown}", "write a list to ask for all of them")
        if not heads:
            name = str(next(iter(spec), ""))
            return self._wrong((*path, name), f"there is no verifier '{name}'", meant(name, [*known(), *GROUPS]))
        head, value = heads[0], spec[heads[0]]
        others = {str(key): item for key, item in spec.items() if key != head}
        if head in GROUPS:
            return self._named_group(head, value, others, (*path, head))
        options, places = _options(head, value, others, path)
        return self._single(head, options, (*path, head), places)

    def _named_group(self, how: How, members: Any, others: Iterable[str], path: Path) -> Node | None:
        for key in others:
            self._wrong((*path[:-1], key), f"'{how}' takes no options", "leave it out")
        if not isinstance(members, Sequence) or isinstance(members, str) or not members:
            return self._wrong(path, f"'{how}' needs a list of verifiers", f"{how}: [complete, ...]")
        return self._group(how, members, path)

    def _group(self, how: How, members: Sequence[Any], path: Path) -> Node | None:
        nodes: list[Node] = []
        for position, member in enumerate(members):
            before = len(self.problems)
            node = self.read(member, (*path, position))
            if node is not None:
                nodes.append(node)
            elif len(self.problems) == before:
                self._wrong((*path, position), "a verifier is needed here", "write a name or a mapping")
        return Group(how, tuple(nodes)) if nodes else None

    def _single(self, name: str, options: Mapping[str, Any], path: Path, places: Mapping[str, Path]) -> Node | None:
        if name in KINDS:
            return self._built_in(name, options, path, places)
        if name in custom.installed():
            return Single(name, options)
        return self._wrong(path, f"there is no verifier '{name}'", meant(name, known()))

    def _built_in(self, name: str, options: Mapping[str, Any], path: Path, places: Mapping[str, Path]) -> Node | None:
        try:
            checked = KINDS[name].options.model_validate(options, context={"rungs": self.rungs})
        except ValidationError as cause:
            for error in cause.errors(include_url=False):
                inner, message, hint = _explained(name, options, error)
                place = (*places.get(str(inner[0]), path), *inner[1:]) if inner else path
                self._wrong(place, message, hint)
            return None
        return Single(name, checked)

    def _wrong(self, path: Path, message: str, hint: str) -> Node | None:
        """Note a mistake; a wrong spec has no node."""
        self.problems.append(SpecProblem(path, message, hint))
        return None


def known() -> tuple[str, ...]:
    """Names of all verifiers, those of installed packages included, sorted."""
    return tuple(sorted({*KINDS, *custom.installed()}))


def meant(word: str, words: Collection[str]) -> str:
    """A hint which of `words` was probably meant, else all of them."""
    close = difflib.get_close_matches(word, words, 1, 0.6)
    return f"did you mean '{close[0]}'?" if close else f"known: {', '.join(sorted(words))}"


def dotted(path: Path) -> str:
    """A path as people write it: verify.all[0].regex."""
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path).removeprefix(".")


def _options(
    head: str, value: Any, others: Mapping[str, Any], path: Path
) -> tuple[Mapping[str, Any], Mapping[str, Path]]:
    """Options of `{head: value, **others}`, and where each of them stands.

    A mapping as value holds options itself, unless it is a JSON Schema written in place.
    """
    places: dict[str, Path] = {key: (*path, key) for key in others}
    if value is None:
        return others, places
    in_place = head == "json_schema" and isinstance(value, Mapping) and "schema" not in value
    if isinstance(value, Mapping) and not in_place:
        inner = {str(key): item for key, item in value.items()}
        return {**others, **inner}, places | {key: (*path, head, key) for key in inner}
    short = KINDS[head].options.shorthand if head in KINDS else "value"
    return {short: value, **others}, places | {short: (*path, head)}


def _explained(name: str, options: Mapping[str, Any], error: Mapping[str, Any]) -> tuple[Path, str, str]:
    """A pydantic error in our words. Places that only pydantic knows (a branch of a union) are left out."""
    location: Path = error["loc"]
    key = str(location[0]) if location else ""
    match error["type"]:
        case "extra_forbidden":
            fields = KINDS[name].options.model_fields
            names = [given.alias or field_name for field_name, given in fields.items()]
            return (key,), f"'{name}' has no option '{key}'", meant(key, names)
        case "missing" if len(location) == 1:
            return (), f"'{name}' needs the option '{key}'", f"{name}: {{{key}: ...}}"
        case _:
            message = str(error["msg"]).removeprefix("Value error, ")
            return _present(options, location), message, ""


def _present(value: Any, location: Path) -> Path:
    """The part of a location that exists in the value."""
    for depth, part in enumerate(location):
        try:
            value = value[part]
        except (KeyError, IndexError, TypeError):
            return location[:depth]
    return location
