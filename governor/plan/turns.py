"""The next request of a step: how a rejected or truncated answer shapes what is asked now."""

from __future__ import annotations

from dataclasses import replace

from governor.plan import thought
from governor.protocols import Verifier
from governor.records import Attempt, Call, Message, Plan, Reply, Step

_REJECTED = "Your answer was checked and rejected: {feedback}\nSolve the task again and give a corrected answer."


def call_for(
    step: Step, plan: Plan, attempts: tuple[Attempt, ...], verifier: Verifier | None, seconds_left: float | None
) -> Call:
    """The request that carries out `plan` after `attempts`. Its time limit never passes the deadline."""
    last = attempts[-1].reply if attempts else None
    rung = plan.rung
    return Call(
        step_id=step.id,
        rung=rung,
        messages=_messages(step, plan, attempts),
        attempt=len(attempts) + 1,
        tools=step.tools,
        tool_choice=step.tool_choice,
        response_schema=step.response_schema,
        prefix=unfinished(last) if plan.mode == "continue" and last is not None else "",
        seed=None if step.seed is None else step.seed + len(attempts),
        timeout=rung.timeout if seconds_left is None else min(rung.timeout, seconds_left),
        logprobs=verifier is not None and verifier.wants_logprobs,
        hold=rung.samples > 1 or (verifier is not None and verifier.needs_whole_answer),
    )


def _messages(step: Step, plan: Plan, attempts: tuple[Attempt, ...]) -> tuple[Message, ...]:
    if plan.mode != "feedback":
        return step.messages
    for attempt in reversed(attempts):
        if attempt.reply is not None and attempt.rejected:
            told = _REJECTED.format(feedback=attempt.verdict.feedback if attempt.verdict else "")
            return (
                *step.messages,
                {"role": "assistant", "content": _said(attempt.reply)},
                {"role": "user", "content": told},
            )
    return step.messages


def _said(reply: Reply) -> str:
    """The reply as text: tool calls that nobody answered can't stand in a chat as such."""
    calls = [f"[calls the tool {call.name} with {call.arguments}]" for call in reply.tool_calls]
    return "\n".join([*([reply.text] if reply.text else []), *calls])


def unfinished(reply: Reply) -> str:
    """The text that a truncated reply must go on from, its open thought included."""
    if reply.stopped and reply.thinking and not reply.text:
        return thought.closed(reply.thinking)  # a rule ended the thought: what is left to give is the answer
    return thought.written(reply.thinking, reply.text)


def joined(before: Reply, after: Reply) -> Reply:
    """A continued reply as one: text and thought joined, the usage of the continuation alone."""
    if after.thinking and not before.text:
        thinking, text = before.thinking + after.thinking, after.text
    else:
        thinking, text = thought.read(unfinished(before) + after.text)
    logprobs = None
    if before.logprobs is not None and after.logprobs is not None:
        logprobs = before.logprobs + after.logprobs
    return replace(after, text=text, thinking=thinking, logprobs=logprobs)
