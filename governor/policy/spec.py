"""The shape of `verify`: names, one-key mappings, lists, and all / any / then. Leaves belong to the verifiers."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from governor.policy.finding import Check, Finding, Path, suggestion

if TYPE_CHECKING:
    from governor.policy.schema import Policy

COMBINERS = ("all", "any", "then")

Leaf = Callable[[str, Any, Path], Iterable[Finding]]
"""Judges one leaf: the verifier's name, its options (None where only the name is given), and where it stands."""


def specs(policy: Policy) -> Iterator[tuple[Path, Any]]:
    """Every `verify` of the policy, with its path: the policy's own, then those of the rules."""
    if policy.verify is not None:
        yield ("verify",), policy.verify
    for position, rule in enumerate(policy.steps):
        if rule.verify is not None:
            yield ("steps", position, "verify"), rule.verify


def shape_findings(policy: Policy) -> Iterator[Finding]:
    """What is wrong with the shape of the policy's specs, whatever their leaves say."""
    for path, spec in specs(policy):
        yield from spec_findings(spec, path, _any_leaf)


def verify_check(names: Iterable[str], leaf: Leaf | None = None) -> Check:
    """A check for `load_policy`: leaves must be among `names`, and pass `leaf` where one is given."""
    known = (*COMBINERS, *sorted(names))

    def judge(name: str, options: Any, path: Path) -> Iterator[Finding]:
        if name not in known:
            yield Finding(path, f"unknown verifier '{name}'", suggestion(name, known))
        elif leaf is not None:
            yield from leaf(name, options, path)

    def check(policy: Policy) -> Iterator[Finding]:
        for path, spec in specs(policy):
            # Only what the leaves say: the shape is judged whenever a policy is loaded.
            yield from (found for found in spec_findings(spec, path, judge, shape=False))

    return check


def spec_findings(spec: Any, path: Path, leaf: Leaf, *, shape: bool = True) -> Iterator[Finding]:
    """What is wrong with one spec at `path`; without `shape`, only what `leaf` says."""
    if isinstance(spec, str) and spec:
        yield from leaf(spec, None, path)
    elif isinstance(spec, Sequence) and not isinstance(spec, str) and spec:
        for position, part in enumerate(spec):
            yield from spec_findings(part, (*path, position), leaf, shape=shape)
    elif isinstance(spec, Mapping) and len(spec) == 1:
        yield from _entry_findings(spec, path, leaf, shape=shape)
    elif shape:
        yield Finding(path, *_shape_words(spec))


def _entry_findings(spec: Mapping[str, Any], path: Path, leaf: Leaf, *, shape: bool) -> Iterator[Finding]:
    ((name, options),) = spec.items()
    inner = (*path, name)
    if name not in COMBINERS:
        yield from leaf(name, options, inner)
    elif isinstance(options, Sequence) and not isinstance(options, str):
        yield from spec_findings(options, inner, leaf, shape=shape)
    elif shape:
        yield Finding(inner, f"'{name}' takes a list of verifiers", f"write '{name}: [complete, ...]'")


_ONE_KEY = (
    "options stand inside, {regex: {pattern: ..., mode: ...}}; several verifiers in a list, [complete, {regex: ...}]"
)


def _shape_words(spec: Any) -> tuple[str, str]:
    if isinstance(spec, Mapping) and spec:
        names = ", ".join(str(name) for name in spec)
        return f"a verifier is one key with its options, not {len(spec)} ({names})", _ONE_KEY
    if isinstance(spec, str | Sequence | Mapping):
        return "names no verifier", "write 'complete', or null for no verification"
    return "must be a verifier's name, {name: options}, or a list of these", ""


def _any_leaf(_name: str, _options: Any, _path: Path) -> tuple[Finding, ...]:
    return ()
