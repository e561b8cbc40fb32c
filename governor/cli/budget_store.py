"""The store that a `governor budget` command looks at, and the policy whose limits it knows."""

from __future__ import annotations

import sys
import time
from collections.abc import Generator, Iterable, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast
from urllib.parse import unquote, urlsplit

import typer

from governor.cli.reading import refusals
from governor.errors import LedgerError

if TYPE_CHECKING:
    from governor.ledger.standing import Standing
    from governor.ledger.sums import Figures
    from governor.policy import Policy
    from governor.protocols import Auditable, Balance, Reservation
    from governor.records import Limit

Uri = Annotated[str | None, typer.Argument(metavar="[LEDGER]", help="Budget store, such as sqlite:///budget.db.")]
Rules = Annotated[str | None, typer.Option("--policy", help="Look at this policy's limits and scopes, in its store.")]
Prefix = Annotated[str, typer.Option("--scope", help="Only scopes that begin so, e.g. app: or session:desk/.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON; figures in micro-USD, milliseconds, tokens.")]


LIMITS_SECONDS = 30.0
"""How long a watch without a policy trusts the limits that it read from open reservations."""


@dataclass(slots=True)
class Store:
    """An open store. `name` is its URI without secrets."""

    name: str
    ledger: Auditable
    policy: Policy | None
    _held: tuple[float, tuple[Reservation, ...]] | None = None

    def standings(self, prefix: str, seen: Mapping[str, tuple[float, Figures]] | None = None) -> tuple[Standing, ...]:
        """How its scopes stand now; those of single steps only where the prefix asks for them."""
        from governor.ledger.standing import standings

        found = standings(self._balances(prefix), self._reservations(), self._limits, time.time())
        return tuple(replace(one, seen=(seen or {}).get(one.balance.scope)) for one in found)

    def _balances(self, prefix: str) -> list[Balance]:
        """Of a policy, its application's. Steps are not even read then: they may be many, and others wait meanwhile."""
        if prefix or self.policy is None:
            return [one for one in self.ledger.balances(prefix) if prefix or not one.scope.startswith("step:")]
        owners = [f"{kind}:{self.policy.app}" for kind in ("app", "model", "node", "run", "session", "tenant")]
        found = [(owner, one) for owner in owners for one in self.ledger.balances(owner)]
        return [one for owner, one in found if one.scope[len(owner) :][:1] in ("", "/", "@", "~")]

    def _reservations(self) -> tuple[Reservation, ...]:
        """Without a policy, limits are those of open reservations; looked for now and then, as limits seldom change."""
        if self.policy is not None:
            return ()
        if self._held is None or time.monotonic() - self._held[0] > LIMITS_SECONDS:
            held = tuple(one for one in self.ledger.reservations() if one.state == "open")
            self._held = time.monotonic(), held
        return self._held[1]

    def _limits(self, scope: str) -> Iterable[Limit]:
        from governor.policy import limits_on

        return () if self.policy is None else limits_on(self.policy, scope)


@contextmanager
def opened(uri: str | None, policy: str | None) -> Generator[Store, None, None]:
    """Open the store, which must be there already: looking at a budget makes no file."""
    from governor.ledger import open_ledger
    from governor.protocols import Auditable
    from governor.telemetry.redact import redact

    with refusals():
        rules = _read(policy)
        where = uri or _of(rules)
        _must_be_there(where)
        ledger = open_ledger(where)
    with closing(ledger):
        if not isinstance(ledger, Auditable):
            with refusals():
                raise LedgerError(
                    f"ledger '{redact(where)}' can't list its scopes (it is no governor.protocols.Auditable)"
                )
        yield Store(redact(where), cast("Auditable", ledger), rules)


def confirmed(question: str) -> bool:
    """Whether a person said yes; where nobody can answer, nobody did."""
    typer.echo(f"{question} [y/N] ", nl=False, err=True)
    answer = sys.stdin.readline()
    if not answer:
        typer.echo("(nobody answers here: use --yes)", err=True)
    return answer.strip().lower() in ("y", "yes")


def _read(policy: str | None) -> Policy | None:
    from governor.checks import policy_checks
    from governor.policy import load_policy

    return None if policy is None else load_policy(policy, checks=policy_checks())


def _of(policy: Policy | None) -> str:
    from governor.facade import default_ledger

    if policy is None:
        raise LedgerError("which budget? name its store (such as sqlite:///budget.db) or a policy (--policy)")
    return policy.ledger or default_ledger(policy)


def _must_be_there(uri: str) -> None:
    if uri == "memory://":
        raise LedgerError("memory:// lives in one process and ends with it: no other can look at it")
    parts = urlsplit(uri)
    path = Path(unquote(parts.path.removeprefix("/")))
    if parts.scheme == "sqlite" and not parts.netloc and path.name and not path.exists():
        raise LedgerError(f"ledger '{uri}': there is no file {path} (it is made when something is first spent)")
