"""One of everything, for the tests of this folder."""

from __future__ import annotations

from governor.errors import Refusal
from governor.records import Amount, Attempt, Forecast, Outcome, Reply, Rung, Step, ToolCall, Usage, Verdict

PROMPT = "What is six times seven, Ä\ud800?"
ANSWER = "forty-two, says the oracle"
STEP = Step(
    id="s-1",
    node="solve",
    session="thread 9",
    run="run-3",
    parent="node-7",
    index=2,
    messages=({"role": "user", "content": PROMPT},),
)
RUNG = Rung(
    id="high", model="openai/large", effort="high", thinking_tokens=512, answer_tokens=256, temperature=0.2, samples=3
)
REPLY = Reply(
    text=ANSWER,
    thinking="six sevens",
    tool_calls=(ToolCall(id="t1", name="multiply", arguments="{}"),),
    finish_reason="length",
    usage=Usage(100, 40, 30, 5),
    seconds=1.5,
    logprobs=(-0.1, -2.0),
    model="large-2026",
    stopped="budget",
)
VERDICT = Verdict(
    decision="reject",
    verifier="number",
    score=0.25,
    feedback=f"{ANSWER} is no number",
    failure="format",
    usage=Usage(7, 3),
    micros=4,
    calls=1,
    seconds=0.25,
)
FORECAST = Forecast(
    rung="high",
    p_success=0.123456789,
    p_accept=0.5,
    output_tokens=123.456,
    micros=9.99,
    seconds=float("inf"),
    index=1e-9,
)
ATTEMPT = Attempt(
    number=2,
    rung=RUNG,
    mode="feedback",
    reply=REPLY,
    verdict=VERDICT,
    usage=Usage(300, 120, 90, 15, 30),
    micros=77,
    calls=3,
    seconds=2.345678,
    reason="rejected: format",
    forecasts=(FORECAST,),
)
OUTCOME = Outcome(
    step_id="s-1",
    status="best_so_far",
    answer=ANSWER,
    reply=REPLY,
    rung="high",
    attempts=(ATTEMPT,),
    spent=Amount(430, 81, 2_600, 4, input=307, thinking=90, answer=33),
    usage=Usage(300, 120, 90, 15, 30),
    verifier_usage=Usage(7, 3),
    seconds=2.7,
    arm="shadow",
    decided="low",
    audit=True,
    refusal=Refusal(kind="budget_busy", scope="app:a", dimension="calls", limit=9, retry_after=1.0),
    difficulty=0.61,
    reason="nothing left",
    node="solve",
    session="thread 9",
    run="run-3",
    parent="node-7",
    scopes=("session:desk/thread 9", "app:desk@2026-11-21"),
)
