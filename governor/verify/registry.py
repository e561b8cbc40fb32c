"""Builds verifiers from specs; what a spec may be stands in spec.py and docs/verify.md."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any, Literal, TypeAlias

from governor.errors import MissingExtraError, PolicyError, Problem, VerifierError
from governor.protocols import Verifier
from governor.records import Amount, Reply, Rung, Step, Verdict
from governor.verify.combine import Combined
from governor.verify.custom import third_party
from governor.verify.kinds import KINDS
from governor.verify.leaf import Bound, one_line, pure
from governor.verify.options import Options, Rates, Site, leaf
from governor.verify.sandbox import SandboxLimits
from governor.verify.spec import Group, Node, Single, SpecProblem, SpecReader, dotted, known

Fail: TypeAlias = Literal["open", "closed"]

_LIMITS = SandboxLimits()
_NO_RUNGS: Mapping[str, Rung] = {}


def known_verifiers() -> tuple[str, ...]:
    """Names of all verifiers, those of installed packages included, sorted."""
    return known()


def problems_of(spec: Any, *, judge_rungs: Collection[str] | None = None) -> list[SpecProblem]:
    """Every mistake in a spec, in reading order, without running a verifier or importing anything of a user's.

    `judge_rungs` are the ids of the rungs that exist; None leaves the names of judge rungs unchecked. Options
    of verifiers from other packages are for those to check, when they are built.
    """
    reader = SpecReader(judge_rungs)
    reader.read(spec)
    return reader.problems


def may_foresee(spec: Any) -> bool:
    """Whether a spec's verifier may doubt an answer that has only begun; True of one that another package brings.

    A wrong spec foresees nothing. Like `problems_of` it imports nothing of a user's.
    """
    node = SpecReader(None).read(spec)
    return node is not None and _may_foresee(node)


def build_verifier(
    spec: Any,
    *,
    checks: Sequence[Mapping[str, Any]] = (),
    judge_rungs: Mapping[str, Rung] = _NO_RUNGS,
    sandbox: SandboxLimits = _LIMITS,
    fail: Fail = "closed",
    bound: Bound,
) -> Verifier | None:
    """The verifier of a spec and of a step's own checks, all of which must accept; None where both are empty.

    `bound` is the most that one model call can spend. The result holds nothing of a step: keep it and use it
    again. PolicyError lists the mistakes of a wrong spec. Where something that a verifier needs is absent (an
    extra, a user's module), `fail: closed` raises MissingExtraError or VerifierError, while `fail: open` puts
    a verifier in its place that is always unsure and says why: neither ever accepts in silence.
    """
    reader = SpecReader(judge_rungs)
    nodes = [reader.read(spec, ("verify",)), reader.read(list(checks), ("checks",))]
    if reader.problems:
        raise PolicyError([Problem(message, field=dotted(path), hint=hint) for path, message, hint in reader.problems])
    site = Site(judge_rungs=judge_rungs, sandbox=sandbox, bound=bound)
    members = tuple(_made(node, site, fail) for node in nodes if node is not None)
    if not members:
        return None
    return members[0] if len(members) == 1 else Combined("all", members)


def _may_foresee(node: Node) -> bool:
    match node:
        case Group("then", members):
            return _may_foresee(members[0])
        case Group(how, members):
            return (all if how == "any" else any)(map(_may_foresee, members))
        case Single(name, Options() as options):
            kind = KINDS[name]
            return kind.foresees and kind.make(options, Site(bound=lambda _: Amount())).foresees
        case Single():
            return True


def _made(node: Node, site: Site, fail: Fail) -> Verifier:
    match node:
        case Group(how, members):
            made = tuple(_made(member, site, fail) for member in members)
            return made[0] if len(made) == 1 else Combined(how, made)
        case Single():
            try:
                return _leaf(node, site)
            except (VerifierError, MissingExtraError) as cause:
                if fail == "closed":
                    raise
                return _absent(node.name, one_line(cause), site)


def _leaf(node: Single, site: Site) -> Verifier:
    if isinstance(node.options, Options):
        return KINDS[node.name].make(node.options, site)
    return third_party(node.name, node.options, site)


def _absent(name: str, error: str, site: Site) -> Verifier:
    """Stands in for a verifier that can't be made: always unsure."""

    def check(step: Step, reply: Reply) -> Verdict:
        del step, reply
        return Verdict(decision="unsure", verifier=name, error=error)

    return leaf(name, Options(), Rates(1.0, 1.0), pure(check), site)
