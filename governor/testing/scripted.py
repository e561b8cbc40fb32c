"""A backend that answers from a script."""

from __future__ import annotations

import re
from collections import deque
from collections.abc import AsyncIterator, Callable, Collection, Iterable, Iterator
from dataclasses import replace
from typing import TypeAlias

from governor.protocols import Delta
from governor.records import Call, Reply, Rung, Usage, text_of

Answer: TypeAlias = Reply | str | BaseException
Script: TypeAlias = Iterable[Answer] | Callable[[Call], Answer]


class ScriptedBackend:
    """A Backend that answers from a script and keeps each call in `calls`.

    The script is a sequence of answers used in order, or a function of the call. An answer is a Reply, a text (one
    token a word, in the request and in the answer), or an exception to raise. Streams yield word by word. A
    script that is used up raises AssertionError: a call that no test foresaw.

    The rungs in `counted` count their streams: the words share out the reply's output tokens.
    """

    def __init__(self, script: Script, *, continues: Collection[str] = (), counted: Collection[str] = ()) -> None:
        self.calls: list[Call] = []
        self.closed = False
        self._continues = frozenset(continues)
        self._counted = frozenset(counted)
        self._script = script if callable(script) else _in_order(script)

    def call(self, call: Call) -> Reply:
        self.calls.append(call)
        answer = self._script(call)
        if isinstance(answer, BaseException):
            raise answer
        return answer if isinstance(answer, Reply) else _reply(call, answer)

    async def acall(self, call: Call) -> Reply:
        return self.call(call)

    def stream(self, call: Call) -> Iterator[Delta | Reply]:
        reply = self.call(call)
        yield from _counted(reply) if self.counts(call.rung) else _pieces(reply)

    async def astream(self, call: Call) -> AsyncIterator[Delta | Reply]:
        for piece in self.stream(call):
            yield piece

    def continues(self, rung: Rung) -> bool:
        return rung.id in self._continues

    def counts(self, rung: Rung) -> bool:
        return rung.id in self._counted

    def close(self) -> None:
        self.closed = True


def _in_order(answers: Iterable[Answer]) -> Callable[[Call], Answer]:
    waiting = deque(answers)

    def next_answer(call: Call) -> Answer:
        if not waiting:
            raise AssertionError(f"the script is used up: unforeseen call of rung '{call.rung.id}' ({call.purpose})")
        return waiting.popleft()

    return next_answer


def _reply(call: Call, text: str) -> Reply:
    asked = sum(len(text_of(message).split()) for message in call.messages)
    return Reply(text=text, usage=Usage(asked, len(text.split())), model=call.rung.model)


def _pieces(reply: Reply) -> Iterator[Delta | Reply]:
    if reply.thinking:
        yield Delta(thinking=reply.thinking)
    for word in re.findall(r"\s*\S+|\s+$", reply.text):
        yield Delta(text=word)
    yield reply


def _counted(reply: Reply) -> Iterator[Delta | Reply]:
    """The pieces with the tokens that they come to, the last one with all of them."""
    *pieces, whole = _pieces(reply)
    used, asked = reply.usage.output_tokens, reply.usage.input_tokens
    for number, piece in enumerate(pieces, start=1):
        if isinstance(piece, Delta):
            yield replace(piece, usage=Usage(asked, used * number // len(pieces)))
    yield whole
