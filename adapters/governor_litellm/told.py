"""What a client is told of its governed request: headers, the opt-in body field, and refusals."""

from __future__ import annotations

import math
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from governor.records import Attempt, Outcome, Usage
from governor_litellm.flight import Flight

PREFIX = "x-governor-"
DETAILS_HEADER = "x-governor-details"
DETAILS = "governor_details"


def refused(outcome: Outcome, told: Mapping[str, str]) -> Exception:
    """The error for an outcome without an answer: 402 or 429 for a budget, 503 for what broke down."""
    refusal = outcome.refusal
    if refusal is not None and refusal.kind == "budget_busy":
        kind, status = "budget_busy", HTTPStatus.TOO_MANY_REQUESTS
    elif refusal is not None or outcome.status == "refused":
        kind, status = "budget_exceeded", HTTPStatus.PAYMENT_REQUIRED
    else:
        kind, status = "governor_unavailable", HTTPStatus.SERVICE_UNAVAILABLE
    wait = refusal.retry_after if refusal is not None else None
    headers = {**told, **({} if wait is None else {"retry-after": str(max(1, math.ceil(wait)))})}
    why = outcome.reason or "no answer"
    return problem(f"governor: {why}{_limit(outcome)}", kind, status, headers)


def problem(message: str, kind: str, status: int, headers: Mapping[str, str] | None = None) -> Exception:
    """An error that the proxy answers in the shape of the client's format."""
    from litellm.proxy._types import ProxyException

    made: Exception = ProxyException(
        message=message, type=kind, param=None, code=int(status), headers=dict(headers or {})
    )
    made.status_code = int(status)  # type: ignore[attr-defined]  # what a stream's error is told by
    return made


def begun(flight: Flight) -> dict[str, str]:
    """The headers of a request whose outcome is not known yet: a stream's, or one in shadow."""
    call = flight.call
    rung = {"rung": call.rung.id} if call is not None and flight.governed else {}
    status = "streaming" if flight.governed else arm_word(flight)
    return _headers({"app": flight.governor.policy.app, **rung, "status": status})


def ended(flight: Flight, outcome: Outcome) -> dict[str, str]:
    """The headers of one whose outcome is known."""
    return _headers(
        {
            "app": flight.governor.policy.app,
            "rung": outcome.rung,
            "attempts": str(len(outcome.attempts)),
            "status": outcome.status,
            "tokens": str(outcome.spent.tokens),
            "micro-usd": str(outcome.spent.micros),
        }
    )


def arm_word(flight: Flight) -> str:
    """Which arm a request that is not governed belongs to."""
    return "shadow" if flight.request.terms.mode == "shadow" else "control"


def details(flight: Flight, outcome: Outcome) -> dict[str, Any]:
    """The body field that a client may ask for. It says nothing of other requests, and holds no text of any attempt."""
    return {
        "app": flight.governor.policy.app,
        "status": outcome.status,
        "rung": outcome.rung,
        "reason": outcome.reason,
        "difficulty": outcome.difficulty,
        "tokens": outcome.spent.tokens,
        "micro_usd": outcome.spent.micros,
        "usage": _counts(outcome.reply.usage if outcome.reply else Usage()),
        "attempts": [_attempt(attempt) for attempt in outcome.attempts],
    }


def paid(outcome: Outcome) -> Usage:
    """All that the client pays for: every attempt, verifiers included."""
    return outcome.usage + outcome.verifier_usage


def wants_details(headers: Mapping[str, str], metadata: Mapping[str, Any]) -> bool:
    """Whether the client asked for the body field."""
    return headers.get(DETAILS_HEADER, "").strip() in ("1", "true") or metadata.get(DETAILS) in (True, 1, "1", "true")


def _attempt(attempt: Attempt) -> dict[str, Any]:
    verdict = attempt.verdict
    return {
        "rung": attempt.rung.id,
        "mode": attempt.mode,
        "decision": verdict.decision if verdict else "",
        "verifier": verdict.verifier if verdict else "",
        "failure": attempt.failure,
        "usage": _counts(attempt.usage),
    }


def _counts(usage: Usage) -> dict[str, int]:
    return {"input_tokens": usage.input_tokens, "output_tokens": usage.output_tokens}


def _limit(outcome: Outcome) -> str:
    """Which of the client's own budgets it was; of an application's or another's no name is told."""
    refusal = outcome.refusal
    return "" if refusal is None else f" ({refusal.scope.partition(':')[0]} budget: {refusal.dimension})"


def _headers(words: Mapping[str, str]) -> dict[str, str]:
    """Header values are ASCII without line breaks, whatever a policy's names hold."""
    return {
        PREFIX + name: value.encode("ascii", "replace").decode().replace("\n", " ") for name, value in words.items()
    }
