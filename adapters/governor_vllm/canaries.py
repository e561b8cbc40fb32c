"""The proofs that a server does what it says: each canary is a small request whose answer shows whether a setting acts.

vLLM answers 200 to a budget that it does not keep (a start mark that the tokenizer merges with what follows is never
found) and to arguments that no processor reads. So nothing is believed that was not seen to act.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from functools import partial
from typing import Any, TypeVar

from governor.errors import BackendReplyError, BackendRequestError
from governor.stops.settings import PREFIX
from governor_vllm.families import FAMILIES
from governor_vllm.link import Link, ServerFaultError, StrangeReplyError, shaped
from governor_vllm.load import tells
from governor_vllm.probe import PATIENCE, PROMPT, Probe, chat_tokens, completion_tokens, ended, opening
from governor_vllm.served import Budget, Finding, Served

BUDGET = f"{PREFIX}budget"
SHORT, LONG = 4, 8
"""Two budgets whose thoughts must differ by exactly their difference."""

_GRAMMAR = "structured_outputs"  # what the processor's refusal of a grammar names
_ROOM = 24  # tokens beyond the longest budget, for the end that is forced
_LEAD = " First I look at the numbers, one by one."  # a thought that is not over, put into the prompt
_PARSER = "serve it with a reasoning parser or --reasoning-config (`governor serve` prints the command)"
_PROCESSOR = "serve it with --logits-processors governor_vllm.processor:GovernorLogitsProcessor (`governor serve` does)"
_OTHER_MARKS = (
    "marks other than <think> and </think> must be named to the processor (`governor serve` does for known families): "
    """--additional-config '{"governor": {"start": "...", "end": "..."}}'"""
)
_ADD = {"name": "add", "parameters": {"type": "object", "properties": {}}}
_TOOL = {"type": "function", "function": _ADD}
_STRICT = {"type": "function", "function": {**_ADD, "strict": True}}

T = TypeVar("T")
Thought = Callable[[Mapping[str, Any]], int | None]
"""Extra settings of a request -> tokens of its thought, end mark included; None where it does not end in time."""


def prove(link: Link, model: str = "") -> Served:
    """Try everything on one served model (by default the first). Raises BackendError where the server can't be used."""
    name, window = _named(link, model)
    probe = _marked(Probe(link, name))
    behind, parses = _opened(probe), _parses(probe)
    engine, engine_budget = _measured(probe, "budget", behind, _own, _PARSER)
    found = [engine, _refused_nonsense(probe)]
    processor_budget = None
    if found[-1].verdict == "honoured":
        governed, processor_budget = _measured(probe, "governed", behind, _xargs, _OTHER_MARKS)
        found.append(governed)
        if processor_budget is not None:
            found += [_offered(probe, "tools", _TOOL), _offered(probe, "strict", _STRICT)]
    found += [_parser(parses, behind), *_others(probe)]
    return Served(
        model=name,
        window=window,
        version=_version(link),
        findings={one.canary: one for one in found},
        engine=engine_budget,
        processor=processor_budget,
        opens=behind is not None,
        marks=(probe.start, probe.end),
        parses=parses,
        end_tokens=_end_tokens(probe),
    )


def examine(address: str, model: str = "", key_env: str | None = None) -> Served:
    """`prove` for a server by its address."""
    link = Link(address, key_env=key_env)
    try:
        return prove(link, model)
    finally:
        link.close()


def _named(link: Link, model: str) -> tuple[str, int]:
    """The served model of this name, or the first, and its context window."""
    try:
        cards = {
            str(card["id"]): int(card.get("max_model_len") or 0) for card in json.loads(link.get("/v1/models"))["data"]
        }
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError) as fault:
        raise BackendReplyError(f"{link.root}/v1/models lists no models: is it an OpenAI-compatible server?") from fault
    name = model or next(iter(cards), "")
    if name not in cards:
        text = f"{link.root} serves no model '{name}' (it serves {', '.join(cards) or 'none'})"
        raise BackendRequestError(text, model=model, sent=False)
    return name, cards[name]


def _version(link: Link) -> str:
    found = _asked("", lambda: str(json.loads(link.get("/version")).get("version", "")))
    return "" if isinstance(found, Finding) else found


def _marked(probe: Probe) -> Probe:
    """The probe with the marks of the model's thoughts: a family's own, where its tokenizer has them, or the usual."""
    for marks in (family.marks for family in FAMILIES if family.marks):
        if _asked("", partial(_are_tokens, probe, marks)) is True:
            return replace(probe, start=marks[0], end=marks[1])
    return probe


def _are_tokens(probe: Probe, texts: tuple[str, ...]) -> bool:
    return all(len(probe.ids(text)) == 1 for text in texts)


def _opened(probe: Probe) -> int | None:
    """Tokens that the template puts behind the `<think>` it opens; None where it opens none, or nothing tells."""

    def behind() -> int | None:
        text = opening(probe.text(probe.rendered()), probe.start, probe.end)
        return None if text is None else len(probe.ids(text))

    found = _asked("", behind)
    return None if isinstance(found, Finding) else found


def _end_tokens(probe: Probe) -> int:
    """Tokens of the mark that ends a thought: one, where nothing tells."""
    found = _asked("", lambda: len(probe.ids(probe.end)))
    return 1 if isinstance(found, Finding) else found


def _parses(probe: Probe) -> bool:
    """Whether what the model thinks, with no budget at all, comes apart from its answer."""

    def apart() -> bool:
        answer = probe.chat(max_tokens=LONG + _ROOM, min_tokens=LONG)
        return bool(answer["choices"][0]["message"].get("reasoning"))

    return _asked("", apart) is True


def _own(tokens: int) -> Mapping[str, Any]:
    """The setting of vLLM's own budget."""
    return {"thinking_token_budget": tokens}


def _xargs(tokens: int) -> Mapping[str, Any]:
    """The setting of the processor's budget."""
    return {"vllm_xargs": {BUDGET: tokens}}


def _measured(
    probe: Probe, canary: str, behind: int | None, setting: Callable[[int], Mapping[str, Any]], change: str
) -> tuple[Finding, Budget | None]:
    """Whether a thinking budget acts, and how far it counts otherwise than Governor does."""
    found = _asked(canary, lambda: _tried(probe, canary, behind, setting, change), change)
    return (found, None) if isinstance(found, Finding) else found


def _tried(
    probe: Probe, canary: str, behind: int | None, setting: Callable[[int], Mapping[str, Any]], change: str
) -> tuple[Finding, Budget | None]:
    """In a chat, and where that tells nothing in a thought that the prompt has begun."""
    near, lead = behind or 0, probe.ids(_LEAD)
    begun = lead if behind is not None else probe.ids(f"{probe.start}\n{_LEAD}")
    finding, budget = _judged(canary, _in_chat(probe, near), near, setting, change)
    start, more = near, begun
    if finding.verdict == "unproved" and behind is not None:
        start, more = near + len(lead), lead * 2
        finding, budget = _judged(canary, _in_prompt(probe, lead, start), start, setting, change)
    if budget is None:
        return finding, None
    counted = _counts(probe, more, setting(start + LONG), start + LONG + budget.extra)
    return finding, replace(budget, extra=budget.extra + (start - near) * counted, prompt=counted)


def _counts(probe: Probe, more: list[int], settings: Mapping[str, Any], end: int) -> bool:
    """Whether a thought in the prompt counts: with `more` of it there, the thought then ends before `end` tokens."""
    thought = _in_prompt(probe, more, end)
    sooner, free = thought(settings), thought({})
    return sooner is not None and sooner < end and (free is None or sooner < free)


def _in_chat(probe: Probe, behind: int) -> Thought:
    limits = {"max_tokens": behind + LONG + _ROOM, "min_tokens": behind + LONG, "logprobs": True}
    return lambda settings: ended(chat_tokens(probe.chat(**limits, **settings)), probe.end)


def _in_prompt(probe: Probe, lead: list[int], behind: int) -> Thought:
    """A thought that the prompt has begun, for a model that would end its own too soon to tell anything."""
    prompt = [*probe.rendered(), *lead]
    limits = {"max_tokens": behind + LONG + _ROOM, "min_tokens": behind + LONG, "logprobs": 1}
    return lambda settings: ended(completion_tokens(probe.complete(prompt, **limits, **settings)), probe.end)


def _judged(
    canary: str, thought: Thought, behind: int, setting: Callable[[int], Mapping[str, Any]], change: str
) -> tuple[Finding, Budget | None]:
    """What three budgets show: the least ends the thought at once, the others exactly their difference apart."""
    free, budgets = thought({}), (1, behind + SHORT, behind + LONG)
    ends = [thought(setting(tokens)) for tokens in budgets]
    one, short, long = ends
    if one is not None and short is not None and long is not None and one < short and long - short == LONG - SHORT:
        extra = long - budgets[-1]
        seen = f"a budget of b ends the thought after b{extra:+d} tokens, mark included"
        return Finding(canary, "honoured", seen), Budget(extra, least=one)
    if free is not None and free <= behind + LONG:
        return Finding(canary, "unproved", f"the model ends its thought by itself after {free} tokens"), None
    told = f"budgets of {_listed(budgets)} ended the thought after {_listed(ends)} tokens, none after {free or 'none'}"
    return Finding(canary, "ignored", f"HTTP 200, but {told}", change), None


def _listed(numbers: Any) -> str:
    return ", ".join("none" if number is None else str(number) for number in numbers)


def _refused_nonsense(probe: Probe) -> Finding:
    """A processor that is loaded refuses a budget that is none, by its name, and takes one that is.

    A server without it looks at neither, or knows no such arguments at all.
    """
    try:
        probe.chat(max_tokens=1, **_xargs(-1))
    except BackendRequestError as refusal:
        seen = str(refusal)
    else:
        return Finding("xargs", "ignored", "HTTP 200 to arguments that nothing reads", _PROCESSOR)
    if BUDGET in seen:
        try:
            probe.chat(max_tokens=1, **_xargs(LONG))
        except BackendRequestError as refusal:
            seen = str(refusal)
        else:
            return Finding("xargs", "honoured", "the processor reads its arguments")
    return Finding("xargs", "refused", seen, "" if _GRAMMAR in seen else _PROCESSOR)


def _offered(probe: Probe, canary: str, tool: Mapping[str, Any]) -> Finding:
    """Whether the processor may act beside such a tool, which may be called.

    Beside a grammar it refuses to. Most of vLLM's tool parsers hold calls with strict tools to one, some all calls.
    """
    found = _asked(canary, lambda: probe.chat(max_tokens=1, tools=[tool], tool_choice="auto", **_xargs(LONG)))
    if not isinstance(found, Finding):
        return Finding(canary, "honoured", "the processor acts beside such tools, which may be called")
    if _GRAMMAR not in found.seen:
        return Finding(canary, "unproved", found.seen, _CHANGES["tools"])
    change = "VLLM_ENFORCE_STRICT_TOOL_CALLING=0 on the server; until then vLLM's own budget stands in beside them"
    return Finding(canary, "refused", "vLLM holds calls with such tools to a grammar", change)


def _parser(parses: bool, behind: int | None) -> Finding:
    if parses:
        return Finding("reasoning", "honoured", "thoughts come apart from answers")
    if behind is None:
        return Finding("reasoning", "unproved", "the model showed no thought")
    seen = "thoughts come inside the answer; Governor takes them apart by their marks"
    return Finding("reasoning", "ignored", seen, "serve it with --reasoning-parser")


def _others(probe: Probe) -> Iterator[Finding]:
    for canary, trial in _TRIALS.items():
        yield _asked(canary, partial(trial, probe), _CHANGES.get(canary, ""))


def _asked(canary: str, question: Callable[[], T], change: str = "") -> T | Finding:
    """The answer to a question. That the server refuses it is a finding too.

    What may pass is an error: a server that is gone or busy, a key that is refused, an answer that breaks off. Findings
    are believed for as long as the process lives.
    """
    try:
        with shaped(""):
            return _once_more(question)
    except (BackendRequestError, ServerFaultError) as fault:
        if not fault.sent:
            raise
        return Finding(canary, "refused", str(fault), change)
    except StrangeReplyError as strange:
        return Finding(canary, "unproved", str(strange))


def _once_more(question: Callable[[], T]) -> T:
    """The answer, asked for twice where the server failed at the question itself: that may pass, or be its answer."""
    try:
        return question()
    except ServerFaultError:
        return question()


def _switch(probe: Probe) -> Finding:
    on, off = (probe.rendered(chat_template_kwargs={"enable_thinking": value}) for value in (True, False))
    if on != off:
        return Finding("switch", "honoured", "enable_thinking changes the prompt")
    return Finding("switch", "ignored", "the chat template does not read enable_thinking", _CHANGES["switch"])


def _effort(probe: Probe) -> Finding:
    low, high = (probe.rendered(chat_template_kwargs={"reasoning_effort": word}) for word in ("low", "high"))
    if low != high:
        return Finding("effort", "honoured", "reasoning_effort changes the prompt")
    return Finding("effort", "ignored", "the chat template does not read reasoning_effort", _CHANGES["effort"])


def _counting(probe: Probe) -> Finding:
    options = {"include_usage": True, "continuous_usage_stats": True}
    body = {"model": probe.model, "messages": list(PROMPT), "max_tokens": 3, "stream": True, "stream_options": options}
    with probe.link.events("/v1/chat/completions", body, PATIENCE) as events:
        pieces = [event for event in events if event.get("choices") and not event["choices"][0].get("finish_reason")]
    if pieces and all(event.get("usage") for event in pieces):
        return Finding("counts", "honoured", "every piece of a stream tells its tokens")
    return Finding("counts", "ignored", "streams do not tell their tokens as they run", _CHANGES["counts"])


def _prefill(probe: Probe) -> Finding:
    """The prompt with a begun answer ends in it, and the request itself reads that very prompt."""
    begun = [*PROMPT, {"role": "assistant", "content": "First of all"}]
    how = {"add_generation_prompt": False, "continue_final_message": True}
    prompt = probe.rendered(begun, **how)
    read = probe.chat(messages=begun, max_tokens=1, **how)["usage"]["prompt_tokens"]
    if probe.text(prompt).endswith("First of all") and read == len(prompt):
        return Finding("prefill", "honoured", "a begun answer is gone on from")
    return Finding(
        "prefill", "ignored", f"a begun answer of {len(prompt)} tokens was read as {read}", _CHANGES["prefill"]
    )


def _resume(probe: Probe) -> Finding:
    prompt = [*probe.rendered(), *probe.ids("First of all")]
    read = probe.complete(prompt, max_tokens=1)["usage"]["prompt_tokens"]
    if read == len(prompt):
        return Finding("resume", "honoured", "a truncated reply is gone on from by its tokens")
    return Finding("resume", "ignored", f"a prompt of {len(prompt)} tokens was read as {read}")


def _priority(probe: Probe) -> Finding:
    """Only that it is taken: vLLM 0.32 takes one whatever its policy, and what waits behind what can't be seen."""
    _ = probe.chat(max_tokens=1, priority=1)["choices"][0]
    seen = "taken; whether waiting requests are ordered by it can't be seen"
    return Finding("priority", "unproved", seen, _CHANGES["priority"])


def _repetition(probe: Probe) -> Finding:
    """A bias makes the model say one word for ever, which must be noticed."""
    word = probe.ids(" a")[0]
    rule = {"max_pattern_size": 1, "min_pattern_size": 1, "min_count": 4}
    answer = probe.chat(max_tokens=_ROOM, logit_bias={str(word): 100.0}, repetition_detection=rule)
    if answer["choices"][0]["finish_reason"] == "repetition":
        return Finding("repetition", "honoured", f"a loop ended after {answer['usage']['completion_tokens']} tokens")
    return Finding("repetition", "ignored", f"a loop ran on for {answer['usage']['completion_tokens']} tokens")


def _metrics(probe: Probe) -> Finding:
    if tells(probe.link.get("/metrics"), probe.model):
        return Finding("metrics", "honoured", "this model's queue is told")
    return Finding("metrics", "ignored", "/metrics tells nothing of this model's queue", _CHANGES["metrics"])


_TRIALS: Mapping[str, Callable[[Probe], Finding]] = {
    "switch": _switch,
    "effort": _effort,
    "counts": _counting,
    "prefill": _prefill,
    "resume": _resume,
    "priority": _priority,
    "repetition": _repetition,
    "metrics": _metrics,
}
_CHANGES: Mapping[str, str] = {
    "switch": "use a rung without `effort: none`, or a template that reads enable_thinking",
    "effort": "use thinking_tokens instead of effort words, or a template that reads reasoning_effort",
    "tools": "to offer tools, serve it with --enable-auto-tool-choice and --tool-call-parser",
    "counts": "use vLLM 0.32 or later",
    "prefill": "tools can't be offered to a call that goes on from a cut reply; serve a template that keeps the text",
    "priority": "serve it with --scheduling-policy priority",
    "metrics": "don't hide /metrics: load then raises no price",
}
