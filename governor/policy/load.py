"""A policy file -> a Policy, or every mistake in it with file, line, column and how to mend it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from governor.errors import PolicyError, Problem
from governor.policy.consistency import consistency
from governor.policy.document import Entry, Node, tree_of
from governor.policy.finding import Check, Finding, dotted
from governor.policy.finding import Path as FieldPath
from governor.policy.inheritance import read_chain
from governor.policy.schema import FILES, Policy
from governor.policy.wording import KEY_ERRORS, findings_of, path_of


@dataclass(frozen=True, slots=True)
class Inspection:
    """What reading a policy showed: the policy if it can be used, mistakes, doubts, and the files read."""

    policy: Policy | None
    problems: tuple[Problem, ...] = ()
    warnings: tuple[Problem, ...] = ()
    files: tuple[Path, ...] = ()


def load_policy(source: str | Path, *, checks: Iterable[Check] = ()) -> Policy:
    """The policy of a file, or of a name such as "balanced" that comes with Governor.

    `checks` are cross-checks that other parts bring; their errors count as mistakes, their warnings are
    not shown (see `inspect_policy`). Raises PolicyError with every mistake at once, in file order.
    """
    return _usable(inspect_policy(source, checks))


def policy_from(data: Mapping[str, Any], *, name: str = "policy", checks: Iterable[Check] = ()) -> Policy:
    """The policy of data that is in memory already, in the shape of the file but without `extends`.

    Raises PolicyError; its problems bear `name` and the field, their lines mean nothing.
    """
    if data.get("extends") is not None:
        raise PolicyError([Problem("only a file can extend another", name, field="extends", hint="merge them first")])
    return _usable(_inspect(tree_of(data, name), (), checks))


def inspect_policy(source: str | Path, checks: Iterable[Check] = ()) -> Inspection:
    """Everything there is to say about a policy file: never raises for what the files hold."""
    chain = read_chain(source)
    if chain.tree is None:
        found = Inspection(None, tuple(chain.problems))
    elif chain.whole:
        found = _inspect(chain.tree, chain.problems, checks)
    else:
        found = _inspect_part(chain.tree, chain.problems)
    files = [str(path) for path in chain.files]
    read = (*chain.files, *(_beside(chain.tree) if chain.tree else ()))
    return Inspection(found.policy, _in_order(found.problems, files), _in_order(found.warnings, files), read)


def _beside(tree: Node) -> Iterator[Path]:
    """The files that the policy names: what they hold is part of what it says."""
    for key in FILES:
        entry = tree.child(key)
        if isinstance(entry, Entry) and isinstance(entry.node.value, str):
            yield Path(entry.node.place.file).parent / entry.node.value


def _usable(inspection: Inspection) -> Policy:
    if inspection.policy is None:
        raise PolicyError(inspection.problems)
    return inspection.policy


def _inspect(tree: Node, problems: Iterable[Problem], checks: Iterable[Check]) -> Inspection:
    data = tree.plain()
    try:
        policy = Policy.model_validate(data)
    except ValidationError as error:
        mistakes = _mistakes(tree, error)
        follow = [_problem(tree, found) for found in _follow(data, error) if not tree.leads_to_unread(found.path)]
        return Inspection(None, (*problems, *mistakes, *follow))
    for key in FILES:
        if policy.file_of(key) is not None:
            policy._folders[key] = Path(tree.place_of((key,)).file).parent
    findings = [found for found in _all_findings(policy, checks) if not tree.leads_to_unread(found.path)]
    errors = [*problems, *(_problem(tree, found) for found in findings if found.severity == "error")]
    warnings = tuple(_problem(tree, found) for found in findings if found.severity == "warning")
    return Inspection(None if errors else policy, tuple(errors), warnings)


def _inspect_part(tree: Node, problems: Iterable[Problem]) -> Inspection:
    """What can be said of a file whose base can't be had: never that something is missing at its top."""
    try:
        Policy.model_validate(tree.plain())
    except ValidationError as error:
        mistakes = [found for found in _mistakes(tree, error) if found.message != "missing key 'ladder'"]
        return Inspection(None, (*problems, *mistakes))
    return Inspection(None, tuple(problems))


def _mistakes(tree: Node, error: ValidationError) -> list[Problem]:
    at_key = {path_of(detail) for detail in error.errors(include_url=False) if detail["type"] in KEY_ERRORS}
    findings = [found for found in findings_of(error) if not tree.leads_to_unread(found.path)]
    return [_problem(tree, found, key=found.path in at_key) for found in findings]


def _all_findings(policy: Policy, checks: Iterable[Check]) -> Iterator[Finding]:
    """The built-in checks first; the others may rely on what those grant."""
    own = list(consistency(policy))
    yield from own
    if not any(found.severity == "error" for found in own):
        for check in checks:
            yield from check(policy)


def _follow(data: dict[str, Any], error: ValidationError) -> list[Finding]:
    """Mistakes between keys, found by leaving out the faulty keys, so that they come to light in the same run.

    None are told where leaving keys out does not help, or would make mistakes of its own.
    """
    details = error.errors(include_url=False)
    paths = [path_of(detail)[: -1 if detail["type"] == "missing" else None] for detail in details]
    if any(_names_something(path) for path in paths):
        return []
    for path in paths:
        _drop(data, path)
    try:
        policy = Policy.model_validate(data)
    except ValidationError:
        return []
    return [found for found in consistency(policy) if found.severity == "error" and not _from_dropping(found, paths)]


def _from_dropping(found: Finding, dropped: list[FieldPath]) -> bool:
    """Whether what is wrong may be only that a faulty key was left out: a sum of tokens, an empty mapping."""
    sums = [path[:-1] for path in dropped if path[-1] in _TOKENS]
    emptied = any(path[: len(found.path)] == found.path for path in dropped)
    return emptied or (found.path[-1] in _TOKENS and found.path[:-1] in sums)


_TOKENS = ("thinking_tokens", "answer_tokens")


def _names_something(path: FieldPath) -> bool:
    """Whether other keys may refer to what stands there: a rung, a model, or the list of them."""
    return not path or not isinstance(path[-1], str) or path[-1] == "ladder" or path[:-1] == ("models",)


def _drop(data: Any, path: FieldPath) -> None:
    for part in path[:-1]:
        if isinstance(data, dict) and part not in data:
            return  # fell with something above it
        data = data[part]
    data.pop(path[-1], None)


def _problem(tree: Node, finding: Finding, *, key: bool = False) -> Problem:
    place = tree.place_of(finding.path, key=key)
    return Problem(finding.message, place.file, place.line, place.column, dotted(finding.path), finding.hint)


def _in_order(problems: Iterable[Problem], files: list[str]) -> tuple[Problem, ...]:
    rank = {file: position for position, file in enumerate(files)}
    unique = dict.fromkeys(problems)
    return tuple(sorted(unique, key=lambda problem: (rank.get(problem.file, -1), problem.line, problem.column)))
