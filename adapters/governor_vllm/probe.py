"""Questions to one served model that cost nothing or a few tokens: how a prompt renders, how a thought ends."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from governor_vllm.link import Link
from governor_vllm.marks import END, START

PATIENCE = 120.0
"""Seconds for a canary that generates: a cold or busy engine may take long."""

PROMPT = ({"role": "user", "content": "Explain step by step how you would sort five numbers by hand."},)


@dataclass(frozen=True, slots=True)
class Probe:
    """One model behind one link. All questions raise BackendError."""

    link: Link
    model: str
    start: str = START
    end: str = END

    def rendered(self, messages: Sequence[Mapping[str, Any]] = PROMPT, **options: Any) -> list[int]:
        """Token ids of a chat prompt, as the served template renders it."""
        return self._tokens({"messages": list(messages), **options})

    def ids(self, text: str) -> list[int]:
        """Token ids of a plain text, without marks around it."""
        return self._tokens({"prompt": text, "add_special_tokens": False}) if text else []

    def text(self, ids: Sequence[int]) -> str:
        """Token ids as text."""
        answer = self.link.post("/detokenize", {"model": self.model, "tokens": list(ids)})
        with self.link.shaped():
            return str(answer["prompt"])

    def chat(self, **settings: Any) -> Mapping[str, Any]:
        """A greedy chat completion of the canaries' prompt."""
        body = {"model": self.model, "messages": list(PROMPT), "temperature": 0.0, **settings}
        answer: Mapping[str, Any] = self.link.post("/v1/chat/completions", body, PATIENCE)
        return answer

    def complete(self, prompt: Sequence[int], **settings: Any) -> Mapping[str, Any]:
        """A greedy completion of token ids."""
        body = {"model": self.model, "prompt": list(prompt), "temperature": 0.0, **settings}
        answer: Mapping[str, Any] = self.link.post("/v1/completions", body, PATIENCE)
        return answer

    def _tokens(self, body: Mapping[str, Any]) -> list[int]:
        answer = self.link.post("/tokenize", {"model": self.model, **body})
        with self.link.shaped():
            return [int(one) for one in answer["tokens"]]


def chat_tokens(answer: Mapping[str, Any]) -> list[str]:
    """The generated tokens of a chat completion that was asked for logprobs; [] where it has none."""
    return [str(one["token"]) for one in (answer["choices"][0].get("logprobs") or {}).get("content") or ()]


def completion_tokens(answer: Mapping[str, Any]) -> list[str]:
    """The same of a plain completion."""
    return [str(one) for one in (answer["choices"][0].get("logprobs") or {}).get("tokens") or ()]


def ended(tokens: Iterable[str], end: str = END) -> int | None:
    """How many tokens the thought has, its end mark included; None where it does not end."""
    text = ""
    for number, token in enumerate(tokens, start=1):
        text += token
        if end in text:
            return number
    return None


def opening(prompt: str, start: str = START, end: str = END) -> str | None:
    """What a rendered prompt has behind the `<think>` that it opens; None where it opens no thought."""
    _, mark, behind = prompt.rpartition(start)
    return behind if mark and end not in behind else None
