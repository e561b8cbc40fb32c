"""Call -> the request that makes its rung true on this server, or the error that says why none can.

Every setting that is sent was seen to act (`governor_vllm.canaries`), or the policy declared what stands in for it; a
priority was seen to be taken.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from governor.errors import BackendRequestError, PolicyError
from governor.plan import thought
from governor.plan.bounds import bound, output_bound
from governor.plan.dialects import Dialect, dialect_for
from governor.plan.effort import hardness, json_body, wire
from governor.plan.messages import messages_of
from governor.records import Call, Rung
from governor.stops.settings import PREFIX, Stops
from governor_vllm.marks import END
from governor_vllm.options import ModelOptions
from governor_vllm.probe import Probe
from governor_vllm.served import Budget, Served

CHAT, COMPLETIONS = "/v1/chat/completions", "/v1/completions"

_WORDS_PER_TOKEN = 0.75  # of English prose
_CLOSED = f"\n{END}\n\n"
_FREE = (None, "auto")  # what leaves the model free to call no tool
_CHAT_ONLY = (
    "messages",
    "chat_template_kwargs",
    "reasoning_effort",
    "tools",
    "tool_choice",
    "logprobs",
    "top_logprobs",
    "response_format",
)


@dataclass(frozen=True, slots=True)
class Request:
    """What is sent.

    `inside`: the reply's text begins in a thought, which nobody takes apart from the answer for us. `cut_at`: hang up
    at that many tokens of thought. `ends_at`: a budget has ended a thought of so many tokens, its mark left out.
    """

    path: str
    body: Mapping[str, Any]
    inside: bool = False
    cut_at: int | None = None
    ends_at: int | None = None


@dataclass(frozen=True, slots=True)
class Target:
    """A model behind its server: what the policy says of it, and what the canaries showed."""

    model: str
    options: ModelOptions
    served: Served

    @property
    def dialect(self) -> Dialect:
        """The model's row of the effort table. PolicyError for a `wire` that is none."""
        return dialect_for(self.model, self.options.wire)

    def check(self, rung: Rung) -> None:
        """Raises BackendRequestError, unsent, for a rung that would not be honoured and has no declared fallback."""
        try:
            params = wire(rung, self.dialect)
        except PolicyError as refused:
            raise self._error(str(refused)) from refused
        if "thinking_token_budget" in params.get("extra_body", {}):
            self._budget_or_fallback(rung)
        if rung.effort == "none":
            self._need("switch", "effort none")
        elif rung.effort is not None and self.options.engine.fallback != "prompt":
            self._need("effort", f"effort {rung.effort}")
        if self.options.engine.priority and not self.served.takes("priority"):  # that it acts, nothing can prove
            raise self._error(f"priority {self.options.engine.priority}: {self.served.why('priority')}")
        if self.options.engine.repetition is not None:
            self._need("repetition", "repetition")
        if any(map(_is_ours, self.options.engine.xargs)):
            self._need("xargs", "xargs")
            self._need("governed", "xargs")

    @property
    def budget(self) -> Budget | None:
        """The budget that acts, Governor's own processor before vLLM's; None where neither does."""
        return self.served.processor or self.served.engine

    def _budget_or_fallback(self, rung: Rung) -> None:
        budget = self.budget
        if budget is not None and rung.thinking_tokens < budget.least:
            raise self._error(
                f"thinking_tokens {rung.thinking_tokens} has no room for the end (at least {budget.least})"
            )
        if budget is None and self.options.engine.fallback == "error":
            hint = "state engine.fallback: stream or prompt to do without"
            raise self._error(f"the server keeps no thinking budget ({self.served.why('budget')}); {hint}")
        if budget is None and self.options.engine.fallback == "stream":
            self._need("counts", "engine.fallback stream")

    def _need(self, canary: str, what: str) -> None:
        if not self.served.honours(canary):
            raise self._error(f"{what}: {self.served.why(canary)}")

    def _error(self, text: str) -> BackendRequestError:
        return BackendRequestError(f"{self.model}: {text}", model=self.model, sent=False)


def request_of(call: Call, target: Target, probe: Probe) -> Request:
    """The request for a call. `probe` renders prompts that go on from a prefix; BackendError where it can't be sent."""
    target.check(call.rung)
    if _constrained(call, target.served):
        target = _without_processor(target)
        target.check(call.rung)
    if call.prefix:
        begun = len(probe.ids(call_thought(call)))
        ends_at = _ends_at(call.rung, target, begun) if thought.is_open(call.prefix) else None
        call = _ended(call, target, begun)
        return replace(_resumed(call, target, probe, _body(call, target, begun)), ends_at=ends_at)
    body = _body(call, target)
    served = target.served
    inside = served.opens and served.usual and not served.parses and not _off(call.rung)
    return Request(CHAT, body, inside, _cut_at(call.rung, target), _ends_at(call.rung, target))


def _constrained(call: Call, served: Served) -> bool:
    """Whether a grammar holds the answer: that of a JSON schema, of a tool that must be called, or of one that may be.

    The last hangs on the tool parser: most have one for strict tools, some for all, as the canaries have seen.
    """
    if call.response_schema is not None:
        return True
    if not call.tools or call.tool_choice == "none":
        return False
    held = served.refuses("tools") or (any(map(_strict, call.tools)) and not served.honours("strict"))
    return call.tool_choice not in _FREE or held


def _strict(tool: Mapping[str, Any]) -> bool:
    function = tool.get("function")
    return isinstance(function, Mapping) and bool(function.get("strict"))


def _without_processor(target: Target) -> Target:
    """The target of a call that a grammar holds: nothing may be forced beside it, so vLLM's own budget stands in."""
    served, engine = target.served, target.options.engine
    others = {key: value for key, value in engine.xargs.items() if not _is_ours(key)}
    options = replace(target.options, engine=replace(engine, xargs=others))
    return replace(target, served=replace(served, processor=None), options=options)


def _is_ours(key: str) -> bool:
    """Whether Governor's processor reads an argument; the others are for those of the user."""
    return key.startswith(PREFIX)


def answered(call: Call, target: Target, probe: Probe, thinking: str, used: int, read: int) -> Request | None:
    """The request for the answer to a thought that was cut after `used` tokens; `read` prompt tokens were paid for it.

    None where reading the prompt once more might pass what is held for the call: the reply then ends cut.
    """
    closed = _closed(call, call_thought(call) + thinking)
    request = _resumed(closed, target, probe, _body(closed, target))
    prompt = request.body.get("prompt")
    again = len(prompt) if prompt is not None else read + used + len(_CLOSED)
    left = output_bound(call) - used
    if read + again > bound(call).input or left <= 0:
        return None
    return replace(request, body={**request.body, "max_tokens": min(left, call.rung.answer_tokens)}, cut_at=None)


def _closed(call: Call, thinking: str) -> Call:
    return replace(call, prefix=thought.written(thinking, "").rstrip() + _CLOSED)


def _ended(call: Call, target: Target, begun: int) -> Call:
    """The call with its thought ended, where this side keeps the budget and the prefix has used it up."""
    most = _cut_at(call.rung, target) if thought.is_open(call.prefix) else None
    if most is None or begun < most:
        return call
    return _closed(call, call_thought(call))


def call_thought(call: Call) -> str:
    """The thought that a call goes on from."""
    return thought.read(call.prefix)[0] if call.prefix else ""


def _off(rung: Rung) -> bool:
    return rung.effort == "none"


def _cut_at(rung: Rung, target: Target) -> int | None:
    """Where this side ends the thought, because the server does not."""
    stands_in = target.budget is None and target.options.engine.fallback == "stream"
    return rung.thinking_tokens if stands_in and _capped(rung, target) else None


def _capped(rung: Rung, target: Target) -> bool:
    return hardness(rung, target.dialect) == "hard" and not _off(rung)


def _ends_at(rung: Rung, target: Target, begun: int = 0) -> int | None:
    """Tokens of thought, its mark left out, at which a budget ends it; `begun` more stand in the prompt.

    None where none does. By these a budget is known that had no room for its words.
    """
    mark, cut = target.served.end_tokens, _cut_at(rung, target)
    budgets = [] if cut is None else [cut]
    if target.budget is not None and _capped(rung, target):
        budgets.append(rung.thinking_tokens - mark)
    if target.served.processor is not None and rung.stops is not None and rung.stops.budget is not None:
        budgets.append(rung.stops.budget - mark)
    return min(budgets) - begun if budgets else None


def _body(call: Call, target: Target, begun: int = 0) -> dict[str, Any]:
    """What every request of a call has; `begun` tokens of its thought stand in the prompt."""
    rung = _told(call.rung, target)
    body = json_body(wire(rung, target.dialect))
    thinks = body.pop("thinking_token_budget", None) is not None
    if rung.effort is not None and not _off(rung) and not target.served.honours("effort"):
        body.pop("reasoning_effort", None)
    engine, processor = target.options.engine, target.served.processor
    xargs = dict(engine.xargs)
    if processor is not None:
        xargs |= _rules(rung, processor if thinks else None, begun).args()
    if thinks and processor is None and target.served.engine is not None:
        body["thinking_token_budget"] = target.served.engine.asked(rung.thinking_tokens, begun)
    return {
        **body,
        **({"vllm_xargs": xargs} if xargs else {}),
        **({"priority": engine.priority} if engine.priority else {}),
        **({"repetition_detection": asdict(engine.repetition)} if engine.repetition else {}),
        "model": target.served.model,
        "messages": messages_of(replace(call, rung=rung, prefix="")),
        "max_tokens": output_bound(call),
        "stream": True,
        "stream_options": {"include_usage": True, "continuous_usage_stats": True},
        **_asked(call),
    }


def _rules(rung: Rung, processor: Budget | None, begun: int) -> Stops:
    """The rung's stop rules, with its budget where the processor keeps that.

    The processor counts what is generated: `begun` tokens of the thought are taken off. `least` yields to the budget.
    """
    stops = rung.stops or Stops()
    budgets = [] if stops.budget is None else [max(0, stops.budget - begun)]
    if processor is not None:
        budgets.append(processor.asked(rung.thinking_tokens, begun))
    least = min([max(0, stops.least - begun), *budgets])
    return replace(stops, budget=min(budgets, default=None), least=least, few=max(0, stops.few - begun))


def _told(rung: Rung, target: Target) -> Rung:
    """The rung with what the server does not honour said to the model instead, where the policy declares that."""
    if target.options.engine.fallback != "prompt" or _off(rung):
        return rung
    said = [rung.instruction] if rung.instruction else []
    if rung.thinking_tokens and target.budget is None:
        said.append(f"Think in at most {max(1, int(rung.thinking_tokens * _WORDS_PER_TOKEN))} words, then answer.")
    if rung.effort is not None and not target.served.honours("effort"):
        said.append(f"Reasoning effort: {rung.effort}.")
    return replace(rung, instruction="\n".join(said) or None)


def _asked(call: Call) -> dict[str, Any]:
    """Tools, schema, seed and logprobs."""
    asked: dict[str, Any] = {}
    if call.tools:
        asked["tools"] = [dict(tool) for tool in call.tools]
        asked["tool_choice"] = call.tool_choice or "auto"
    if call.response_schema is not None:
        schema = {"name": "answer", "schema": dict(call.response_schema)}
        asked["response_format"] = {"type": "json_schema", "json_schema": schema}
    if call.seed is not None:
        asked["seed"] = call.seed
    if call.logprobs:
        asked |= {"logprobs": True, **({"top_logprobs": call.top_logprobs} if call.top_logprobs else {})}
    return asked


def _resumed(call: Call, target: Target, probe: Probe, body: Mapping[str, Any]) -> Request:
    """Going on from the prefix: by its tokens, or as a begun message where tools are offered, which only chats parse.

    By tokens, because templates rewrite a begun message (Qwen3's closes the thought that it should go on with), and
    because the engine's cache then holds all of it. No grammar holds what goes on: it would begin its text anew.
    """
    inside = thought.is_open(call.prefix)
    if not target.served.honours("resume"):
        raise BackendRequestError(f"{target.model}: {target.served.why('resume')}", model=target.model, sent=False)
    cut = _cut_at(call.rung, target) if inside else None
    if cut is not None:
        cut -= len(probe.ids(call_thought(call)))
    if call.tools:
        messages = [*body["messages"], {"role": "assistant", "content": call.prefix}]
        how = {"continue_final_message": True, "add_generation_prompt": False}
        return Request(CHAT, {**body, "messages": messages, **how}, inside and not target.served.parses, cut)
    words = {"reasoning_effort": body["reasoning_effort"]} if "reasoning_effort" in body else {}
    options = {**words, **body.get("chat_template_kwargs", {})}
    prompt = probe.rendered(body["messages"], **({"chat_template_kwargs": options} if options else {}))
    begun = call.prefix.removeprefix(thought.OPEN) if target.served.opens and not _off(call.rung) else call.prefix
    rest = {key: value for key, value in body.items() if key not in _CHAT_ONLY}
    asked = {"logprobs": max(1, call.top_logprobs)} if call.logprobs else {}
    return Request(COMPLETIONS, {**rest, **asked, "prompt": [*prompt, *probe.ids(begun)]}, inside, cut)
