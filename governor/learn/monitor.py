"""Hold a running governor to its certificates: which may be used here, whether they still hold, which dial is in force.

A certificate speaks of one policy with one calibration, and of work like the records it was made on. The first is
checked by digests; the second is watched: every audited step bets against "the risk is at most what was certified"
(see `governor.estimate.drift`). On alarm the dial snaps back to the safe dial and stays there until a certificate made
from other evidence is loaded.

Nothing here sees risk by itself. A wrong accepted answer is seen only when someone who knows says so: an audit, that
is a random share of accepted answers graded by a person or by the top rung, or a complaint.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from governor.errors import CertificateError
from governor.estimate.drift import Wealth
from governor.learn.certificate import Certificate
from governor.policy.finding import Finding

_SHOWN = 12  # digits of a digest


@dataclass(frozen=True, slots=True, kw_only=True)
class Audit:
    """A governed step whose truth came to be known.

    `accepted`: its answer was accepted; `correct`: it was right; `best_correct`: the best rung's answer to the same
    step was right, None where that rung wasn't asked. Which steps are audited must not depend on their being right.
    """

    node: str = "default"
    accepted: bool = True
    correct: bool
    best_correct: bool | None = None


@dataclass(frozen=True, slots=True)
class Watch:
    """What audits have said so far: per certificate (by its `evidence`) the wealth of betting against it."""

    wealths: tuple[tuple[str, Wealth], ...] = ()

    def of(self, certificate: Certificate) -> Wealth:
        """The wealth against a certificate; a fresh one where nothing was seen yet."""
        return dict(self.wealths).get(certificate.evidence) or Wealth.one_sided()

    def after(self, certificate: Certificate, failed: bool) -> Watch:
        """The state after one more item that counts for this certificate."""
        grown = self.of(certificate).after(float(failed), certificate.risk)
        return Watch(tuple(sorted((dict(self.wealths) | {certificate.evidence: grown}).items())))

    def to_bytes(self) -> bytes:
        """UTF-8 JSON: some 250 bytes a certificate."""
        return json.dumps({evidence: wealth.to_floats() for evidence, wealth in self.wealths}).encode()

    @classmethod
    def from_bytes(cls, data: bytes) -> Watch:
        """What `to_bytes` gave; CertificateError where these bytes can't be that."""
        try:
            states: dict[str, Any] = json.loads(data)
            return cls(tuple(sorted((key, Wealth.from_floats(state)) for key, state in states.items())))
        except (ValueError, TypeError, AttributeError) as fault:
            raise CertificateError(f"the state of the risk monitor can't be read: {fault}") from fault


@dataclass(frozen=True, slots=True)
class Ruling:
    """The dial in force and why; `certified` where a certificate covers it."""

    dial: float
    certified: bool
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Guard:
    """Holds the dial to its certificates. Pure: what was seen so far is a `Watch`, kept by the caller.

    `policy` and `calibration` are the digests of what is loaded (`policy_digest`, `file_digest`; "" = none). `safe` is
    the dial to fall back on. `delta` bounds the probability of an alarm, ever, though a certificate holds.
    """

    certificates: tuple[Certificate, ...]
    policy: str
    calibration: str
    safe: float = 0.0
    delta: float = 0.05

    def findings(self) -> tuple[Finding, ...]:
        """Why certificates are not used, as warnings for `governor check`."""
        return tuple(
            Finding(("certificate",), f"not used: {why}; dial {self.safe:g} is in force", _HINT, "warning")
            for why in dict.fromkeys(filter(None, map(self.unfit, self.certificates)))
        )

    def unfit(self, certificate: Certificate) -> str:
        """Why a certificate says nothing about what is loaded; "" where it fits."""
        for part, made, here in (
            ("policy", certificate.policy, self.policy),
            ("calibration", certificate.calibration, self.calibration),
        ):
            if made != here:
                return f"it was made {_with(part, made)}, and here runs {_shown(part, here)}"
        return ""

    def ruling(self, node: str, asked: float | None, watch: Watch) -> Ruling:
        """The dial for a step of this node: the thriftiest that was certified and is not above `asked`.

        None asks for as much thrift as was certified. Where several kinds of risk are certified, all must hold. The
        safe dial (or the one asked, if that is safer) where a certificate is absent, does not fit, or was refuted.
        """
        concerned = self.concerned(node)
        if not concerned:
            return self._fallback(asked, f"no certificate for node '{node}'")
        for certificate in concerned:
            if why := self.unfit(certificate) or self._refuted(watch.of(certificate), certificate):
                return self._fallback(asked, f"certificate not used: {why}")
        shared = set.intersection(*(set(certificate.dials) for certificate in concerned))
        allowed = [dial for dial in shared if asked is None or dial <= asked]
        if not allowed:
            return self._fallback(
                asked, "no certified dial is as safe as that" if shared else "no dial holds every risk"
            )
        return Ruling(max(allowed), True, _certified(max(allowed), asked, concerned))

    def observe(self, watch: Watch, audit: Audit) -> Watch:
        """What is known after an audit of a step that ran under this guard's ruling."""
        for certificate in self.concerned(audit.node):
            failed = _failed(certificate, audit)
            if failed is not None and not self.unfit(certificate):
                watch = watch.after(certificate, failed)
        return watch

    def alarms(self, watch: Watch) -> tuple[str, ...]:
        """What audits have refuted, one sentence a certificate."""
        return tuple(filter(None, (self._refuted(watch.of(one), one) for one in self.certificates)))

    def concerned(self, node: str) -> tuple[Certificate, ...]:
        """The certificates that speak of a node: of each kind the node's own, else the one of all nodes together.

        The last of several alike; none at all where one kind of risk is certified for other nodes only.
        """
        own = {one.kind: one for one in self.certificates if one.node == node}
        general = {one.kind: one for one in self.certificates if one.node == ""}
        kinds = sorted({one.kind for one in self.certificates})
        found = [own.get(kind) or general.get(kind) for kind in kinds]
        return () if None in found else tuple(one for one in found if one is not None)

    def _fallback(self, asked: float | None, why: str) -> Ruling:
        dial = self.safe if asked is None else min(self.safe, asked)
        return Ruling(dial, False, f"safe dial {dial:g}: {why}")

    def _refuted(self, wealth: Wealth, certificate: Certificate) -> str:
        if not wealth.alarmed(self.delta):
            return ""
        where = f" at node '{certificate.node}'" if certificate.node else ""
        return (
            f"{wealth.outcomes} audits{where} say that {certificate.kind} is above {certificate.risk:g} "
            f"(e-value {wealth.peak:.3g}, alarm at {1 / self.delta:g})"
        )


_HINT = "certify again with this policy and calibration"


def _failed(certificate: Certificate, audit: Audit) -> bool | None:
    """Whether the audited step failed in the certificate's sense; None where it does not count."""
    if certificate.kind == "accepted-wrong":
        return not audit.correct if audit.accepted else None
    # Without the best rung's answer a right one would count and a wrong one not: neither does.
    return None if audit.best_correct is None else audit.best_correct and not audit.correct


def _certified(dial: float, asked: float | None, concerned: Sequence[Certificate]) -> str:
    claims = " and ".join(f"{one.kind} at most {one.risk:g}" for one in concerned)
    held = "" if asked is None or dial == asked else f" instead of {asked:g}"
    return f"dial {dial:g}{held}: certified, {claims}"


def _with(part: str, digest: str) -> str:
    return f"with {part} {digest[:_SHOWN]}" if digest else f"without a {part}"


def _shown(part: str, digest: str) -> str:
    return f"{part} {digest[:_SHOWN]}" if digest else f"no {part}"
