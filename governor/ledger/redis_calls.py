"""What a Redis ledger asks its script, and what it makes of the answers: without a connection, for both colours.

Each operation is a generator: it yields a call, is sent the script's answer (lists, integers and
bytes), and returns what the ledger returns. Where the script refused it answers the rows that it looked at, and the
same code that rules over every other store finds the reason in them.
"""

from __future__ import annotations

import hashlib
import json
import secrets
import zlib
from collections.abc import Callable, Generator, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from importlib.resources import files
from typing import Any, TypeAlias, TypeVar

from governor.errors import LedgerError, LedgerLostError, LedgerUnavailableError
from governor.ledger import admission
from governor.ledger.admission import NOTHING, Hold
from governor.ledger.book import TIDY_SECONDS, Page, booked_on, known
from governor.ledger.rows import hold_of, limits_text
from governor.ledger.sums import Sums, figures
from governor.protocols import Balance, Reservation
from governor.records import Amount, Limit, Window
from governor.shelf import check_key, check_value

T = TypeVar("T")
FORMAT = 1
"""Version of the rows; a ledger of another one is left alone."""

KEPT = ("epoch", "holds", "sums", "leases", "closed", "due", "shelf", "expiries")
"""What a tenant's ledger consists of, in the order of the script's KEYS."""

CHUNK = 500
"""Scopes that one call restores."""


@dataclass(frozen=True, slots=True)
class Script:
    """A text for the server, and the name under which it remembers it."""

    text: str
    digest: str


@dataclass(frozen=True, slots=True)
class Call:
    """One call: which script, with which arguments."""

    script: Script
    arguments: tuple[str | bytes | int | float, ...]


_PARTS = {
    "writes": ("rows", "admission", "call", "writes"),
    "reads": ("rows", "admission", "call", "reads"),
    "shelf": ("rows", "call", "shelf"),
    "epoch": ("rows", "call", "epoch"),
}
_SCRIPT_OF = {
    **dict.fromkeys(("reserve", "extend", "settle", "refund"), "writes"),
    **dict.fromkeys(("reservation", "balance", "reservations", "balances", "reset"), "reads"),
    **dict.fromkeys(("load", "save"), "shelf"),
    **dict.fromkeys(("open", "clear", "restore", "finish"), "epoch"),
}


@cache
def script_for(operation: str) -> Script:
    """The script that does an operation."""
    folder = files("governor.ledger") / "lua"
    text = "\n".join((folder / f"{part}.lua").read_text() for part in _PARTS[_SCRIPT_OF[operation]])
    return Script(text, hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest())


def keys_of(tenant: str) -> tuple[str, ...]:
    """The keys of a tenant's ledger: one hash tag, so one slot of a cluster."""
    return tuple(f"governor:{{{tenant}}}:{part}" for part in KEPT)


@dataclass(slots=True)
class Epoch:
    """Which books these are: made at once with them, of a larger generation after each rebuilding.

    `seen` is the highest count of operations that an answer told: a server that knows fewer lost some.
    """

    name: str = ""
    generation: int = 0
    seen: int = 0


@dataclass(frozen=True, slots=True)
class _Answer:
    status: bytes
    now: float
    rows: list[Any]


Asking: TypeAlias = Generator[Call, list[Any], T]
"""An operation under way: yields a call, is sent its answer."""


class Calls:
    """The operations of one ledger. `where` names it in errors; `create`: an empty database is begun, not refused."""

    def __init__(self, where: str, clock: Callable[[], float], ttl: float, keep: float, *, create: bool = True) -> None:
        self._where = where
        self._clock = clock
        self._ttl = ttl
        self._keep = keep
        self._create = create
        self._epoch: Epoch | None = None
        self._tidied = self._tidy_again = float("-inf")

    def reserve(self, key: str, amount: Amount, limits: Sequence[Limit], sent: bool) -> Asking[Reservation]:
        whole = tuple(limits)
        admission.checked(amount)
        answer = yield from self._ask("reserve", key, _text(amount), limits_text(whole), int(sent))
        if answer.status != b"refused":
            return _hold(answer.rows[0]).record
        rows = _Refused(answer.rows)
        found, booked = rows.find(key), booked_on(rows, whole, answer.now)
        if found is None:
            admission.opened(key, amount, whole, booked, answer.now, sent=sent)
        else:
            admission.taken_up(replace(found), amount, whole, booked, answer.now, sent=sent)
            if found.limits != whole:  # the same limits in another order
                return (yield from self.reserve(key, amount, found.limits, sent))
        raise self._disagree(key)

    def extend(self, key: str, amount: Amount, whole: bool, sent: bool) -> Asking[Reservation]:
        admission.checked(amount)
        stamp = "" if whole else secrets.token_hex(8)
        answer = yield from self._ask("extend", key, _text(amount), int(whole), int(sent), stamp)
        if answer.status == b"refused":
            found, booked = known(_Refused(answer.rows), key, answer.now)
            admission.extend(found, amount, booked, answer.now, whole=whole, sent=sent)
            raise self._disagree(key)
        return _hold(answer.rows[0]).record

    def settle(self, key: str, spent: Amount) -> Asking[Reservation]:
        admission.checked(spent)
        answer = yield from self._ask("settle", key, _text(spent))
        if answer.status == b"refused":
            found, booked = known(_Refused(answer.rows), key, answer.now)
            admission.settle(found, spent, booked, answer.now)
            raise self._disagree(key)
        return _hold(answer.rows[0]).record

    def refund(self, key: str) -> Asking[Reservation]:
        answer = yield from self._ask("refund", key)
        if answer.status == b"refused":
            found, booked = known(_Refused(answer.rows), key, answer.now)
            admission.refund(found, booked, answer.now)
            raise self._disagree(key)
        return _hold(answer.rows[0]).record

    def reservation(self, key: str) -> Asking[Reservation | None]:
        answer = yield from self._ask("reservation", key)
        return None if answer.rows[0] is None else _hold(answer.rows[0]).record

    def balance(self, scope: str) -> Asking[Balance]:
        answer = yield from self._ask("balance", scope)
        return Balance(scope=scope) if answer.rows[0] is None else _sums(answer.rows[0]).balance

    def reservations(self, prefix: str) -> Asking[tuple[Reservation, ...]]:
        found = yield from self._listed("reservations", prefix)
        return tuple(_hold(found[name]).record for name in sorted(found))

    def balances(self, prefix: str) -> Asking[tuple[Balance, ...]]:
        found = yield from self._listed("balances", prefix)
        return tuple(_sums(found[name]).balance for name in sorted(found))

    def reset(self, scope: str, spent: Amount) -> Asking[Balance]:
        admission.checked(spent)
        answer = yield from self._ask("reset", scope, _text(spent))
        return _sums(answer.rows[0]).balance

    def load(self, key: str) -> Asking[tuple[bytes, int] | None]:
        check_key(key)
        answer = yield from self._ask("load", key)
        if answer.rows[0] is None and len(answer.rows) == 1:
            return None
        value, version, digest, expires = answer.rows
        if value is None or version is None or zlib.crc32(value) != digest:
            raise _damaged(key)
        page = Page(value, version, _seconds(expires))
        return None if page.expired(self._clock()) else (page.value, page.version)

    def save(self, key: str, value: bytes, version: int, ttl: float | None) -> Asking[bool]:
        check_key(key)
        check_value(key, value)
        expires = "" if ttl is None else repr(self._clock() + ttl)
        stamp = secrets.token_hex(8)
        answer = yield from self._ask("save", key, value, zlib.crc32(value), version, expires, stamp)
        if answer.status == b"damaged":
            raise _damaged(key)
        return bool(answer.rows[0])

    def rebuild(self, balances: Iterable[Balance]) -> Asking[None]:
        builder = secrets.token_hex(8)
        rows = [_restored(balance) for balance in balances]
        yield self._call(Epoch(), self._clock(), "clear", builder)
        chunks = [json.dumps(rows[start : start + CHUNK]) for start in range(0, len(rows), CHUNK)]
        steps = [("restore", chunk) for chunk in chunks]
        for name, argument in [*steps, ("finish", secrets.token_hex(8))]:
            if (yield self._call(Epoch(), self._clock(), name, builder, argument, FORMAT)) != [1]:
                raise LedgerUnavailableError(f"ledger {self._where}: another rebuilding of it began meanwhile")
        self._epoch = None

    def _listed(self, name: str, prefix: str) -> Asking[dict[str, list[Any]]]:
        """Rows by name. One page a call: what changes in between may be told as it was or as it is."""
        found: dict[str, list[Any]] = {}
        cursor = "0"
        while True:
            answer = yield from self._ask(name, cursor, prefix)
            after, rows = answer.rows
            found.update((row[0].decode(), row) for row in rows)
            cursor = after.decode()
            if cursor == "0":
                return found

    def _ask(self, name: str, *arguments: str | bytes | int | float) -> Asking[_Answer]:
        while True:
            epoch = self._epoch or (yield from self._open())
            now = self._clock()
            status, *rest = yield self._call(epoch, now, name, *arguments)
            if status == b"lost":
                raise self._lost()
            if status == b"moved":
                self._epoch = None
                continue
            count, again, *rows = rest
            epoch.seen = max(epoch.seen, count)
            self._note_tidied(name, now, again=bool(again))
            if status != b"again":
                return _Answer(status, now, rows)

    def _call(self, epoch: Epoch, now: float, name: str, *arguments: str | bytes | int | float) -> Call:
        tidy = int(not self._tidied <= now < self._tidy_again)
        told = (epoch.name, epoch.generation, epoch.seen, repr(float(now)), self._ttl, self._keep, tidy)
        return Call(script_for(name), (*told, name, *arguments))

    def _note_tidied(self, name: str, now: float, *, again: bool) -> None:
        if _SCRIPT_OF[name] == "writes" and not self._tidied <= now < self._tidy_again:
            self._tidied, self._tidy_again = now, now if again else now + min(TIDY_SECONDS, self._ttl / 4)

    def _open(self) -> Asking[Epoch]:
        """Learns which books these are, and begins them where there are none."""
        token = secrets.token_hex(8)
        known_as = yield self._call(Epoch(), self._clock(), "open", token, FORMAT, int(self._create))
        name, generation, count, form, lost = known_as
        if lost is not None or name is None:
            raise self._lost()
        if int(form) != FORMAT:
            raise LedgerUnavailableError(
                f"ledger {self._where}: written by another version (format {int(form)}, known is {FORMAT}): "
                "use the same compute-governor everywhere"
            )
        self._epoch = Epoch(name.decode(), int(generation), int(count))
        return self._epoch

    def _lost(self) -> LedgerLostError:
        return LedgerLostError(
            f"ledger {self._where}: its books were lost, or are older than what was confirmed (a restart without "
            "appendfsync always, a failover, FLUSHALL): rebuild them from the records before anything is admitted"
        )

    def _disagree(self, key: str) -> LedgerError:
        return LedgerError(f"ledger {self._where}: refused '{key}' for no reason known here: this is a defect")


class _Refused:
    """Implements Rows over what a refusal answers."""

    def __init__(self, rows: list[Any]) -> None:
        hold, booked = rows
        self._hold = None if hold is None else _hold(hold)
        self._sums = {one.scope: one for one in map(_sums, booked)}

    def find(self, key: str) -> Hold | None:
        return self._hold

    def sums(self, scope: str) -> Sums | None:
        return self._sums.get(scope)


def _text(amount: Amount) -> str:
    return json.dumps(figures(amount), separators=(",", ":"))


def _hold(row: list[Any]) -> Hold:
    key, state, *amount, limits, sent, moment = row
    return hold_of((key.decode(), state.decode(), *amount, limits.decode(), sent, float(moment)))


def _sums(row: list[Any]) -> Sums:
    scope, spent, reserved, overshoot, expired, references, touched, since, window, grains = row
    return Sums(
        scope.decode(),
        Window(*map(_seconds, window)),
        spent,
        reserved,
        overshoot,
        expired,
        references,
        float(touched),
        float("-inf") if since is None else float(since),
        None if grains is None else dict(grains),
    )


def _seconds(text: bytes | None) -> float | None:
    return None if text is None else float(text)


def _restored(balance: Balance) -> list[Any]:
    window = balance.window
    ends = [window.until, window.sliding, window.idle]
    return [balance.scope, figures(balance.spent or NOTHING), ends, figures(balance.overshoot)]


def _damaged(key: str) -> LedgerError:
    return LedgerError(f"shelf value '{key}' is damaged: its checksum does not fit; delete its field to begin anew")
