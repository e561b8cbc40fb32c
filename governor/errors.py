"""The error tree. Every error a user can meet says where, what, and how to mend it.

GovernorError
├── PolicyError            a policy file is wrong (carries Problems with file, line, column)
├── TaskError              an input line of `governor run` is wrong
├── LadderError            a ladder file, or what is asked of one, is wrong (carries a Problem)
├── MissingExtraError      an optional dependency is not installed (names the install command)
├── BackendError           a model call failed; says whether it was sent and what it used
│   ├── BackendAuthError           key refused (401, 403)
│   ├── BackendRequestError        the request itself is refused (400, 404, 422)
│   ├── BackendRateLimitError      429 until the deadline was used up
│   ├── BackendTimeoutError        no answer within the call's time limit
│   ├── BackendUnavailableError    connection refused, 5xx, server gone
│   └── BackendReplyError          an answer that can't be read (garbage JSON, cut stream)
│       └── BackendStreamError         a stream broke off after text was shown to its reader
├── LedgerError            the budget store failed
│   ├── BudgetExceededError        a limit would be passed: spent, busy or too small; carries what is left
│   ├── LedgerUnavailableError     the store can't be reached
│   │   └── LedgerLostError            the store answers, but its books are gone or older than they were
│   └── ReservationError           unknown reservation, or used twice in a conflicting way
├── VerifierError          a verifier could not do its work (says nothing about the answer)
│   └── SandboxError               no sandbox is to be had, and the policy asks for one
├── RecordError            a record could not be written (disk full, no permission), or read where it must be
├── CalibrationError       a calibration can't be used (absent, damaged, foreign, newer), or not be fitted
├── CertificateError       a certificate can't be used (damaged, foreign, newer), or may not be given
├── NoAnswerError          a governed step ended without an answer, where an answer has to be returned
├── UngovernedModelError   a chat model inside a governed node can't take the node's rung
├── CheckFailedError       a node found that the work so far is wrong: raised by an application's own code
├── RewindError            a graph should go back to an earlier step and can't
├── FeedbackError          feedback about a step that is not known here, or was given already
└── ModelFileError         a local model file is absent, truncated or not the one recorded
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from governor.records import Amount, Outcome, Usage


class GovernorError(Exception):
    """Base of every error that Governor raises on purpose; `str()` is one line for a person."""


_BREAKS = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029]")
"""What ends a line, or a terminal would take for a command."""


def _escaped(found: re.Match[str]) -> str:
    return found[0].encode("unicode_escape").decode()


@dataclass(frozen=True, slots=True)
class Problem:
    """One mistake in a file: where it is, what is wrong, how to mend it. Lines and columns count from 1."""

    message: str
    file: str = ""
    line: int = 0
    column: int = 0
    field: str = ""
    hint: str = ""

    def __str__(self) -> str:
        place = ":".join(str(part) for part in (self.file, self.line, self.column) if part)
        subject = f"{self.field}: " if self.field else ""
        text = f"{subject}{self.message}"
        if self.hint:
            text = f"{text} ({self.hint})"
        # A key or value that is quoted may hold breaks, and so may a file's name.
        return _BREAKS.sub(_escaped, f"{place}: {text}" if place else text)


class PolicyError(GovernorError):
    """A policy can't be used. `problems` lists every mistake found, in file order."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(str(problem) for problem in self.problems))


class TaskError(GovernorError):
    """A line of a task file can't be used; `problem` says which and why."""

    def __init__(self, problem: Problem) -> None:
        self.problem = problem
        super().__init__(str(problem))


class LadderError(GovernorError):
    """A ladder file can't be used, or not with these records; `problem` says where and why."""

    def __init__(self, problem: Problem) -> None:
        self.problem = problem
        super().__init__(str(problem))


class MissingExtraError(GovernorError):
    """An optional dependency is absent; the message holds the command that installs it."""

    def __init__(self, feature: str, extra: str) -> None:
        self.extra = extra
        super().__init__(f"{feature} needs the extra '{extra}': pip install 'compute-governor[{extra}]'")


class BackendError(GovernorError):
    """A model call that gave no usable reply.

    `sent` is False only when the request certainly never reached the model, so that nothing is owed.
    `usage` is what the server reported; None means unknown, and unknown is booked at the call's bound.
    `seconds` is the time the call took, retries included. `model` is the model that was asked. `spent` is what was used
    where it was several calls (see Reply).
    """

    def __init__(
        self,
        message: str,
        *,
        model: str = "",
        sent: bool = True,
        usage: Usage | None = None,
        seconds: float = 0.0,
        spent: Amount | None = None,
    ) -> None:
        super().__init__(message)
        self.spent = spent
        self.model = model
        self.sent = sent
        self.usage = usage
        self.seconds = seconds


class BackendAuthError(BackendError):
    """The key was refused (HTTP 401 or 403)."""


class BackendRequestError(BackendError):
    """The server refused the request as such (HTTP 400, 404, 422): another try would fail alike."""


class BackendRateLimitError(BackendError):
    """HTTP 429 until the call's deadline was used up."""


class BackendTimeoutError(BackendError):
    """No whole answer within the call's time limit."""


class BackendUnavailableError(BackendError):
    """The server can't be reached or answers 5xx."""


class BackendReplyError(BackendError):
    """The server's answer can't be read: garbage JSON, or a stream that broke off."""


class BackendStreamError(BackendReplyError):
    """A stream broke off after text was shown: no other answer may follow it."""


class LedgerError(GovernorError):
    """Base of everything a budget store can say no with."""


RefusalKind = Literal["budget_exceeded", "budget_busy", "too_large"]
"""Why a budget refused: spent, held by others, or too small for it even when empty."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """What a BudgetExceededError says, as a value: which limit refused, why, and when to come again."""

    kind: RefusalKind
    scope: str
    dimension: str
    limit: int
    resets: float | None = None
    retry_after: float | None = None


class BudgetExceededError(LedgerError):
    """The amount does not fit a limit.

    `scope` names the limit that refused, `dimension` is one of Amount's, `limit` its ceiling, `left` what could still
    be held under all the reservation's limits together, per dimension (`sys.maxsize` in a dimension that no limit
    bounds; None where the store can't say).

    `kind` is `too_large` where it would not fit the limit even if nothing else were booked on it, `budget_exceeded`
    where what is spent leaves no room for it, `budget_busy` where it would fit but for what others hold now. Of several
    limits that refuse, the gravest speaks: in that order, and of two spent ones the one that resets later.
    `resets` is when a spent limit has room for it again, if nothing more is booked (seconds since the epoch; None:
    never by itself). `retry_after` is the same in seconds from now, and for `budget_busy` a short wait; None where
    waiting does not help. `others` is what others hold in this dimension of `scope`, of which some may come back.
    """

    def __init__(
        self,
        scope: str,
        dimension: str,
        limit: int,
        asked: int,
        left: Amount | None = None,
        *,
        kind: RefusalKind = "budget_exceeded",
        resets: float | None = None,
        retry_after: float | None = None,
        others: int = 0,
    ) -> None:
        self.scope = scope
        self.dimension = dimension
        self.limit = limit
        self.asked = asked
        self.left = left
        self.kind: RefusalKind = kind
        self.resets = resets
        self.retry_after = retry_after
        self.others = others
        super().__init__(f"budget '{scope}' {_REFUSED[kind]} {asked} {dimension} would pass the limit of {limit}")

    @property
    def told(self) -> Refusal:
        """The same as a value, without what is left."""
        return Refusal(
            kind=self.kind,
            scope=self.scope,
            dimension=self.dimension,
            limit=self.limit,
            resets=self.resets,
            retry_after=self.retry_after,
        )


_REFUSED: dict[RefusalKind, str] = {
    "budget_exceeded": "exceeded:",
    "budget_busy": "busy, the rest is held by others:",
    "too_large": "exceeded even when empty:",
}


class LedgerUnavailableError(LedgerError):
    """The store can't be reached or written (lock timeout, disk full, file damaged)."""


class LedgerLostError(LedgerUnavailableError):
    """The store lost its books, or answers with an older state of them: they have to be rebuilt before it admits."""


class ReservationError(LedgerError):
    """The reservation is unknown, or was already closed with another amount."""


class VerifierError(GovernorError):
    """A verifier broke down: its verdict is *unsure*, never a silent accept or reject."""


class SandboxError(VerifierError):
    """Untrusted code would have to run without a sandbox, and the policy does not allow that."""


class RecordError(GovernorError):
    """A record or result line could not be written whole, or a file of records not be read."""


class CalibrationError(GovernorError):
    """A calibration can't be used: absent, damaged, foreign or newer; or these records allow none."""


class CertificateError(GovernorError):
    """A certificate can't be used: damaged, foreign or newer; or none may be given on these records."""


class NoAnswerError(GovernorError):
    """A governed step ended without an answer; `outcome` says why, `outcome.refusal` where a budget did."""

    def __init__(self, outcome: Outcome) -> None:
        self.outcome = outcome
        why = outcome.error or outcome.reason
        super().__init__(f"step '{outcome.node}' ended without an answer ({outcome.status}): {why}")


class UngovernedModelError(GovernorError):
    """A chat model that was called inside a governed node can't take the node's rung."""


class CheckFailedError(GovernorError):
    """Raise it in a node that finds the work so far to be wrong; the policy's `on_fail` says which step is redone."""


class RewindError(GovernorError):
    """A graph should go back to an earlier step and can't: its checkpoint is gone, or nothing drives the graph."""


class FeedbackError(GovernorError):
    """Feedback that can't be taken: nothing is known of the step here, or it was labelled already."""


class ModelFileError(GovernorError):
    """A local model can't be used: absent, truncated, unknown, or with another digest than recorded."""
