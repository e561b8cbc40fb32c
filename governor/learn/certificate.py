"""The certificate of a dial: what was shown, on which records, for which policy and calibration.

A file is one JSON object: `format`, `version`, `certificates` (several by node), and `digest`, the SHA-256 of the rest.
The digest finds damage and edits; it is no signature: who may write the file may also forge one.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

from pydantic import AwareDatetime, Field, TypeAdapter, ValidationError

from governor.errors import CertificateError, Problem
from governor.learn.binomial import at_most, upper_bound
from governor.learn.certify import Kind, Trials

if TYPE_CHECKING:
    from governor.policy import Policy

FORMAT: Final = "compute-governor certificate"
VERSION: Final = 1

Share = Annotated[float, Field(ge=0.0, le=1.0)]
Digest = Annotated[str, Field(pattern=r"^([0-9a-f]{64})?$")]

_CERTIFIED = {
    "dial",
    "keep",
    "certificate",
    "calibration",
    "audit",
    "safe_dial",
}  # what the certificate itself speaks of
_UNDECIDING = {"app", "extends", "mode", "fail", "records", "ledger"} | _CERTIFIED
_AGREES = 1e-6  # relative: bounds of another machine may differ in their last digits


@dataclass(frozen=True, slots=True, kw_only=True)
class Certificate:
    """One dial's proof: at level `delta`, the risk is at most `bound`, and so at most `risk`.

    `name` is the ladder's or application's, for people. `dial` is the thriftiest that passed, `dials` every one
    (rising), `node` the graph node it speaks of ("" = all together). `n` items counted, `failures` of them at `dial`.
    `policy`, `calibration` and `records` are SHA-256 digests (hex; "" = none was used), `created` an ISO time.
    """

    name: str
    kind: Kind
    risk: Share
    delta: Share
    dial: Share
    dials: Annotated[tuple[Share, ...], Field(min_length=1)]
    n: Annotated[int, Field(ge=1)]
    failures: Annotated[int, Field(ge=0)]
    bound: Share
    policy: Digest
    calibration: Digest
    records: Digest
    created: AwareDatetime
    node: str = ""

    @property
    def evidence(self) -> str:
        """SHA-256 (hex) of everything but the time: two certificates from the same evidence are the same proof."""
        return _evidence(self)

    def __str__(self) -> str:
        where = f" at node {self.node}" if self.node else ""
        return (
            f"dial {self.dial:g}{where}: {self.kind} at most {self.bound:.2%} "
            f"({self.failures} of {self.n}; asked: {self.risk:g} at delta {self.delta:g})"
        )


def granted(
    tested: Trials, *, name: str, policy: str, calibration: str, records: str, created: datetime
) -> Certificate | None:
    """The certificate of what was tested; None where no dial passed. Digests are hex, "" for none."""
    last = tested.certified
    if last is None:
        return None
    return Certificate(
        name=name,
        kind=tested.kind,
        risk=tested.risk,
        delta=tested.delta,
        dial=last.dial,
        dials=tested.dials,
        n=last.n,
        failures=last.failures,
        bound=last.bound,
        policy=policy,
        calibration=calibration,
        records=records,
        created=created,
        node=tested.node,
    )


def certificates_to_json(certificates: Iterable[Certificate]) -> str:
    """The text of a certificate file."""
    body = {"format": FORMAT, "version": VERSION, "certificates": [_plain(one) for one in certificates]}
    return json.dumps(body | {"digest": _digest(body)}, indent=2, ensure_ascii=False) + "\n"


def certificates_from_json(text: str, source: str = "") -> tuple[Certificate, ...]:
    """The certificates in a file's text; `source` names the file in errors.

    Raises CertificateError where it is no certificate, one of a newer version, was changed after it was written, or
    claims what its own counts do not show.
    """
    body = _object(text, source)
    if body.get("format") != FORMAT:
        raise _refused(source, "format", "this is no certificate", "make one with 'governor certify'")
    if body.get("version") != VERSION:
        said = f"version {body.get('version')!r}, and only {VERSION} is known here"
        raise _refused(source, "version", said, "use the version of compute-governor that wrote it, or certify again")
    if body.get("digest") != _digest({key: value for key, value in body.items() if key != "digest"}):
        raise _refused(source, "digest", "the file was changed after it was written", "certify again")
    certificates = _parsed(body, source)
    for at, one in enumerate(certificates):
        if not _shown(one):
            raise _refused(
                source, f"certificates[{at}]", f"{one.failures} of {one.n} do not show this", "certify again"
            )
    return certificates


def load_certificates(path: Path) -> tuple[Certificate, ...]:
    """The certificates in a file; CertificateError where it can't be read or used."""
    try:
        return certificates_from_json(path.read_text(encoding="utf-8"), str(path))
    except (OSError, UnicodeDecodeError) as fault:
        raise _refused(str(path), "", f"can't be read: {fault}", "") from fault


def policy_digest(policy: Policy) -> str:
    """SHA-256 (hex) of everything in a policy that decides beside the dial.

    Naming a certificate or calibration in a policy, or setting its dial, keep, safe_dial, audit, mode, records, ledger,
    app or `fail`, leaves it as it is; another ladder, verifier, harm, rule, budget or `online` does not.
    """
    return _digest(policy.model_dump(mode="json", by_alias=True, exclude_unset=True, exclude=_UNDECIDING))


def files_digest(paths: Sequence[Path]) -> str:
    """SHA-256 (hex) of the files' contents, whatever their names and order."""
    return hashlib.sha256("".join(sorted(map(file_digest, paths))).encode()).hexdigest()


def file_digest(path: Path) -> str:
    """SHA-256 (hex) of one file's content."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _object(text: str, source: str) -> dict[str, Any]:
    try:
        body = json.loads(text)
    except (json.JSONDecodeError, RecursionError) as fault:
        raise _refused(source, "", f"this is no JSON: {fault}", "make one with 'governor certify'") from fault
    if not isinstance(body, dict):
        raise _refused(source, "", "this is no certificate", "make one with 'governor certify'")
    return body


def _parsed(body: dict[str, Any], source: str) -> tuple[Certificate, ...]:
    try:
        return _CERTIFICATES.validate_json(json.dumps(body.get("certificates")), strict=True)
    except ValidationError as fault:
        first = fault.errors()[0]
        where = ".".join(map(str, ("certificates", *first["loc"])))
        raise _refused(source, where, first["msg"], "certify again") from fault


def _shown(one: Certificate) -> bool:
    """Whether the counts show the claim, computed anew."""
    if one.failures > one.n or one.dial != one.dials[-1] or list(one.dials) != sorted(set(one.dials)):
        return False
    if not (0.0 < one.delta < 1.0 and at_most(one.failures, one.n, one.risk) <= one.delta):
        return False
    return math.isclose(one.bound, upper_bound(one.failures, one.n, one.delta), rel_tol=_AGREES)


@lru_cache(maxsize=256)  # asked for at every step
def _evidence(one: Certificate) -> str:
    return _digest({key: value for key, value in _plain(one).items() if key != "created"})


def _plain(one: Certificate) -> dict[str, Any]:
    return asdict(one) | {"created": one.created.isoformat(), "dials": list(one.dials)}


def _digest(content: Any) -> str:
    text = json.dumps(content, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def _refused(source: str, field: str, said: str, hint: str) -> CertificateError:
    return CertificateError(str(Problem(said, file=source, field=field, hint=hint)))


_CERTIFICATES: TypeAdapter[tuple[Certificate, ...]] = TypeAdapter(
    Annotated[tuple[Certificate, ...], Field(min_length=1)]
)
