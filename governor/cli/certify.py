"""`governor certify RECORDS...`: which dial holds a risk, shown on records that nothing was fitted on.

Exit codes: 0 a dial was certified and the certificate written, 1 none could be (nothing is written), 2 wrong usage,
or records that the calibration was fitted on.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from governor.errors import CertificateError

if TYPE_CHECKING:
    from governor.learn.certificate import Certificate
    from governor.learn.certify import Kind, Trials
    from governor.learn.evidence import Evidence

NOTHING_CERTIFIED = 1


class Risk(StrEnum):
    """What the command line calls the two kinds of risk."""

    ACCEPTED_WRONG = "accepted-wrong"
    LOST_CORRECT = "lost-correct"


class By(StrEnum):
    """What may have certificates of its own."""

    NODE = "node"


def evidence(
    records: Sequence[Path], ladder: Path, *, calibration: Path | None, policy: str | None, seed: int
) -> Evidence:
    """Drive the records through the governor's own loop at every dial, by a calibration or else by the fixed rules."""
    from governor.checks import policy_checks
    from governor.learn import evidence as replayed
    from governor.learn.forecaster import Fitted, Untrained
    from governor.learn.policies import Granted

    forecaster = Fitted.load(calibration) if calibration else Untrained()
    granted = Granted.by(policy, policy_checks()) if policy else None
    return replayed.evidence(records, ladder, forecaster=forecaster, policy=granted, seed=seed)


def certify(
    records: Annotated[list[Path], typer.Argument(exists=True, dir_okay=False, help="Recorded outcomes.")],
    ladder: Annotated[Path, typer.Option(exists=True, dir_okay=False, help="The ladder file that names the rungs.")],
    risk: Annotated[float, typer.Option(help="The risk that may not be passed, in 0..1.")],
    delta: Annotated[float, typer.Option(help="How often a certificate may be wrong, in 0..1.")] = 0.05,
    kind: Annotated[Risk, typer.Option(help="Which risk.")] = Risk.ACCEPTED_WRONG,
    by: Annotated[By | None, typer.Option(help="Certify every graph node by itself.")] = None,
    simultaneous: Annotated[bool, typer.Option("--simultaneous", help="Let all nodes share delta.")] = False,
    calibration: Annotated[
        Path | None, typer.Option(exists=True, dir_okay=False, help="The calibration that forecasts.")
    ] = None,
    policy: Annotated[str | None, typer.Option(help="The policy that decides.")] = None,
    seed: Annotated[int, typer.Option(help="Draws verdicts, and one of each group.")] = 0,
    out: Annotated[Path, typer.Option("--out", "-o", help="Where to write.")] = Path("certificate.json"),
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Find the thriftiest dial that surely holds a risk.

    accepted-wrong is P(wrong | accepted), lost-correct is P(governed wrong and the best rung right). Exit code 1
    where no dial can be certified; it then says how many questions would be needed.

    Without --policy no running governor uses the certificate.

    Example: governor certify held-out.jsonl.gz --ladder ladder.json --risk 0.05 --policy policy.yaml
    """
    if not (0.0 < risk < 1.0 and 0.0 < delta < 1.0):
        raise typer.BadParameter(f"--risk and --delta must lie between 0 and 1, not {risk:g} and {delta:g}")
    from governor.learn.certify import certify_replayed

    digests = _digests(records, calibration, policy)
    found = evidence(records, ladder, calibration=calibration, policy=policy, seed=seed)
    _refuse_fitted(found, calibration)
    tested = certify_replayed(
        found.replayed, _kind(kind), risk=risk, delta=delta, by_node=by is By.NODE, simultaneous=simultaneous, seed=seed
    )
    if _digests(records, calibration, policy) != digests:
        raise CertificateError("records, calibration or policy changed while they were replayed: certify again")
    certificates = _granted(tested, found.name, digests)
    if certificates:
        _write(certificates, out)
    if as_json:
        typer.echo(json.dumps(as_record(tested, out if certificates else None), ensure_ascii=False))
    else:
        typer.echo("\n".join([*map(in_words, tested), _written(certificates, out)]))
    raise typer.Exit(0 if certificates else NOTHING_CERTIFIED)


def in_words(trials: Trials) -> str:
    """What was found of one node, in a line."""
    subject = f"node {trials.node}" if trials.node else "all nodes"
    claim = f"{trials.kind} <= {trials.risk:g} at delta {trials.delta:g}, {trials.units} independent questions"
    last = trials.each[-1]
    if trials.certified is None:
        counts = f"{last.failures} of {last.n} failed at the safest dial {last.dial:g}"
        return f"{subject}: no dial certified for {claim}: {counts} (bound {last.bound:.2%}); {_advice(trials)}"
    best = trials.certified
    shown = f"{best.failures} of {best.n} failed (bound {best.bound:.2%})"
    beyond = "" if last.passed else f"; at {last.dial:g} it was {last.failures} of {last.n} (bound {last.bound:.2%})"
    return f"{subject}: dial {best.dial:g} certified for {claim}: {shown}{beyond}"


def as_record(tested: Sequence[Trials], written: Path | None) -> dict[str, Any]:
    """Everything that was found as plain data; `written` is None where nothing was certified."""
    return {"ok": written is not None, "certificate": str(written) if written else None, "nodes": [*map(_node, tested)]}


def _node(trials: Trials) -> dict[str, Any]:
    best = trials.certified
    needed = None if best else trials.units_needed()
    return asdict(trials) | {"certified": asdict(best) if best else None, "units_needed": needed}


def _written(certificates: Sequence[Certificate], out: Path) -> str:
    if not certificates:
        return "nothing was written"
    unbound = "" if certificates[0].policy else " (made without --policy: no running governor will use it)"
    return f"wrote {out}{unbound}"


def _advice(trials: Trials) -> str:
    needed = trials.units_needed()
    if needed is not None:
        return f"about {needed} questions would be needed if the same share fails"
    if not trials.each[0].n:
        return "nothing was accepted there, so that nothing can be said of it"
    return "no number of questions would do if the same share fails: ask for a higher --risk, or verify more strictly"


def _refuse_fitted(found: Evidence, calibration: Path | None) -> None:
    from governor.learn.certify import overlap

    groups = found.replayed.groups
    if shared := overlap(groups, found.fitted_on):
        raise typer.BadParameter(
            f"{calibration} was fitted on {shared} of these {len(groups)} questions: certify on records it never saw"
        )


def _digests(records: Sequence[Path], calibration: Path | None, policy: str | None) -> dict[str, str]:
    from governor.learn.certificate import file_digest, files_digest

    return {
        "policy": _policy_digest(policy) if policy else "",
        "calibration": file_digest(calibration) if calibration else "",
        "records": files_digest(records),
    }


def _granted(tested: Sequence[Trials], name: str, digests: Mapping[str, str]) -> list[Certificate]:
    from governor.learn.certificate import granted

    now = datetime.now(UTC).replace(microsecond=0)
    return [one for trials in tested if (one := granted(trials, name=name, created=now, **digests))]


def _policy_digest(policy: str) -> str:
    from governor.checks import policy_checks
    from governor.learn.certificate import policy_digest
    from governor.policy import load_policy

    return policy_digest(load_policy(policy, checks=policy_checks()))


def _write(certificates: Sequence[Certificate], out: Path) -> None:
    from governor.learn.certificate import certificates_to_json

    whole = out.with_name(f"{out.name}.part")
    try:
        whole.write_text(certificates_to_json(certificates), encoding="utf-8")
        whole.replace(out)
    except OSError as fault:
        raise CertificateError(f"{out}: can't be written: {fault}") from fault


def _kind(kind: Risk) -> Kind:
    return "accepted-wrong" if kind is Risk.ACCEPTED_WRONG else "lost-correct"
