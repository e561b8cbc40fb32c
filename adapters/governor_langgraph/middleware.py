"""GovernorMiddleware: every model call of a LangChain agent is a governed step.

Put it first in `middleware=[...]`, so that it is outermost: what retries, falls back or edits the request is inside.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any, Literal, TypeAlias

from langchain.agents.middleware import (
    AgentMiddleware,
    AgentState,
    ExtendedModelResponse,
    ModelRequest,
    ModelResponse,
    ToolCallRequest,
)
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage
from langchain_core.runnables.config import ensure_config
from langgraph.types import Command

from governor.arm import arm_of
from governor.checks import policy_checks
from governor.errors import NoAnswerError, UngovernedModelError
from governor.facade import Governor
from governor.policy import Policy, load_policy
from governor.records import Usage
from governor_langgraph.attempt import running
from governor_langgraph.chat import BackendChat
from governor_langgraph.langchain_backend import LangChainBackend
from governor_langgraph.messages import details_of, messages_of, tools_of, usage_metadata, usage_of
from governor_langgraph.place import place_of
from governor_langgraph.shadow import Shadow, awatch, spoken, watch
from governor_langgraph.toolcalls import CountedState, carried_out, unanswerable
from governor_langgraph.tools import Answer, aremembered, remembered
from governor_langgraph.turn import Turn, TurnChat
from governor_langgraph.wrapped import governor_of

Request: TypeAlias = ModelRequest[Any]
Response: TypeAlias = ModelResponse[Any]
Given: TypeAlias = "ModelResponse[Any] | ExtendedModelResponse[Any] | AIMessage"


class GovernorMiddleware(AgentMiddleware[AgentState[Any], Any, Any]):
    """Governs an agent's model calls under a policy: which model answers, how hard it thinks, what is accepted.

    `node` is what the policy's `steps` match ("": the graph's own name of the node). `models` are chat models of your
    own by the policy's model names (see LangChainBackend). With `verify_tools` the arguments and the number of tool
    calls are checked before an answer is accepted. In a graph that goes back, no tool is called twice. A step without
    an answer raises NoAnswerError, or with `on_refusal="message"` ends the agent with a message that says why.
    """

    def __init__(
        self,
        policy: Governor | Policy | str | Path,
        *,
        node: str = "agent",
        models: Mapping[str, BaseChatModel] | None = None,
        verify_tools: bool = True,
        on_refusal: Literal["raise", "message"] = "raise",
    ) -> None:
        super().__init__()
        self.governor = _governor(policy, models)
        self.tools = []
        self._tool, self._atool = remembered(self.governor), aremembered(self.governor)
        self._node, self._verify_tools, self._on_refusal = node, verify_tools, on_refusal
        rules = self.governor.policy
        self._counts = any(rule.max_calls is not None for rule in rules.tools.values())
        self._always = rules.mode == "on" and all(rule.mode in (None, "on") for rule in rules.steps)
        if self._counts:
            self.state_schema = CountedState

    def wrap_model_call(self, request: Request, handler: Callable[[Request], Response]) -> Given:
        shadow = self._shadow(request)
        if shadow is not None:
            watched: Given = watch(shadow, lambda: handler(request))
            return watched
        turn = self._turn(request)
        try:
            with turn.entered():
                response = handler(self._offered(turn, request))
        except NoAnswerError as error:
            return self._refusal(error, turn)
        return self._given(turn, response)

    async def awrap_model_call(self, request: Request, handler: Callable[[Request], Awaitable[Response]]) -> Given:
        shadow = self._shadow(request)
        if shadow is not None:
            watched: Given = await awatch(shadow, lambda: handler(request))
            return watched
        turn = self._turn(request)
        try:
            with turn.entered():
                response = await handler(self._offered(turn, request))
        except NoAnswerError as error:
            return self._refusal(error, turn)
        return self._given(turn, response)

    def wrap_tool_call(self, request: ToolCallRequest, handler: Callable[[ToolCallRequest], Answer]) -> Answer:
        return self._tool(request, handler)

    async def awrap_tool_call(
        self, request: ToolCallRequest, handler: Callable[[ToolCallRequest], Awaitable[Answer]]
    ) -> Answer:
        return await self._atool(request, handler)

    def _turn(self, request: Request) -> Turn:
        governed = not isinstance(request.model, BackendChat)
        return Turn.of(request, self.governor.policy, verify_tools=self._verify_tools, governed=governed)

    def _offered(self, turn: Turn, request: Request) -> Request:
        """The request as our model gets it."""
        asked = turn.offered(request) if self._counts else request
        return asked.override(model=TurnChat(governor=self.governor, node=self._node, turn=turn))

    def _shadow(self, request: Request) -> Shadow | None:
        """The call as one that is only watched, where the policy says so and the agent's model is not ours."""
        if self._always or running() is not None or isinstance(request.model, BackendChat):
            return None
        governor, place, turn = self.governor, place_of(ensure_config()), self._turn(request)
        messages = [*([request.system_message] if request.system_message else []), *request.messages]
        asked = {"tools": tuple(tools_of(request.tools)), "tool_choice": None}
        step = governor.step(
            messages_of(messages),
            node=self._node or place.node,
            session=place.session,
            run=place.run,
            tenant=place.tenant,
            index=place.index,
            **turn.context(asked),
        )
        terms = governor.terms(step)
        return None if arm_of(step, terms) == "governed" else Shadow(governor, step, terms, request.response_format)

    def _refusal(self, error: NoAnswerError, turn: Turn) -> AIMessage:
        if self._on_refusal == "raise":
            raise error
        details = {"governor": details_of(error.outcome)}
        return AIMessage(str(error), usage_metadata=usage_metadata(turn.usage), response_metadata=details)

    def _given(self, turn: Turn, response: Response) -> Given:
        """The response with what it came to in all, and with an answer to each tool call that may not be made."""
        message = spoken(response)
        if message is None:
            return response
        others = None if "governor" in message.response_metadata else usage_of(message.usage_metadata)
        if others is not None:
            self._passed(message)
        if turn.outcomes:
            message.usage_metadata = usage_metadata(turn.usage + (others or Usage()))
        refused = list(unanswerable(message, turn.left(message)))
        response.result.extend(refused)
        if not self._counts:
            return response
        calls = dict(Counter(turn.so_far) + carried_out(message, refused))
        return ExtendedModelResponse(response, Command(update={"governor_calls": calls, "governor_begun": True}))

    def _passed(self, message: AIMessage) -> None:
        """UngovernedModelError for an answer of a model that middleware inside put in the place of ours."""
        if self.governor.policy.ungoverned == "pass":
            return
        name = message.response_metadata.get("model_name") or "another model"
        text = f"{name} answered in the place of the governed model: take the fallback out of the agent's middleware"
        raise UngovernedModelError(f"{text} and give the policy a rung with it, or set `ungoverned: pass`")


def _governor(policy: Governor | Policy | str | Path, models: Mapping[str, BaseChatModel] | None) -> Governor:
    if not models:
        return governor_of(policy)
    if isinstance(policy, Governor):
        raise ValueError("a Governor has its backend already: make it with backend=LangChainBackend(policy, models)")
    loaded = policy if isinstance(policy, Policy) else load_policy(policy, checks=policy_checks())
    return Governor(loaded, backend=LangChainBackend(loaded, models))
