# ruff: noqa: RUF001  phrases are written in their own scripts
from __future__ import annotations

from typing import Any

import pytest

from governor.records import Reply, ToolCall
from governor.verify.refusal import refuses
from governor.verify.text import chosen_option
from tests.verify.driver import judged, reply

TOOL_CALL = ToolCall(id="1", name="f", arguments="{}")


@pytest.mark.parametrize(
    ("given", "failure"),
    [
        (reply("42"), ""),
        (reply("cut he", finish_reason="length"), "truncated"),
        (reply(""), "empty"),
        (reply(" \n\u200b\ufeff"), "empty"),
        (reply("<think>much thought</think>"), "empty"),
        (reply("", thinking="much thought"), "empty"),
        (reply("", tool_calls=(TOOL_CALL,)), ""),
        (reply("some", finish_reason="content_filter"), "refusal"),
        (reply("I'm sorry, but I can't help with that."), "refusal"),
    ],
)
def test_complete(given: Reply, failure: str) -> None:
    verdict = judged("complete", given)
    assert (verdict.decision, verdict.failure) == ("reject" if failure else "accept", failure)
    assert bool(verdict.feedback) == bool(failure)


def test_complete_can_let_apologies_pass_and_ask_for_length() -> None:
    sorry = "I'm sorry, but I cannot give you a refund after 30 days."
    assert judged("complete", sorry).failure == "refusal"
    assert judged({"complete": {"refusals": False}}, sorry).decision == "accept"
    assert judged({"complete": 10}, "short").failure == "empty"


@pytest.mark.parametrize(
    "phrase",
    [
        "I\u2019m sorry, but I can\u2019t assist with that request.",
        "As an AI language model, I cannot provide medical advice.",
        "I am unable to help with this.",
        "Es tut mir leid, aber ich kann dabei nicht helfen.",
        "Ich kann Ihnen dabei leider nicht helfen.",
        "Je suis désolé, mais je ne peux pas répondre.",
        "Lo siento, pero no puedo ayudarte con eso.",
        "Desculpe, mas não posso ajudar com isso.",
        "Mi dispiace, ma non posso aiutarti.",
        "Het spijt me, maar ik kan je daar niet bij helpen.",
        "Извините, но я не могу помочь.",
        "抱歉，我无法回答这个问题。",
        "申し訳ありませんが、お答えできません。",
        "죄송하지만 도와드릴 수 없습니다.",
        "عذرا، لا أستطيع المساعدة.",
    ],
)
def test_refusals_are_known_in_many_languages(phrase: str) -> None:
    assert refuses(phrase)


@pytest.mark.parametrize(
    "phrase",
    [
        "I'm sorry for the delay. The answer is 42.",
        "A square can't have three sides, so the answer is no.",
        "Tut mir leid für das Missverständnis: es sind 42.",
        "You cannot divide by zero, therefore I conclude there is no solution.",
        "42 " * 200 + "I'm sorry, but I can't help",
    ],
)
def test_answers_are_not_taken_for_refusals(phrase: str) -> None:
    assert not refuses(phrase)


@pytest.mark.parametrize(
    ("spec", "text", "decision"),
    [
        ({"regex": r"\d+"}, "it is 42", "accept"),
        ({"regex": r"\d+", "mode": "fullmatch"}, "it is 42", "reject"),
        ({"regex": {"pattern": r"\d+", "mode": "fullmatch", "on": "answer"}}, "So.\nAnswer: 42", "accept"),
        ({"regex": "YES", "ignore_case": True}, "yes", "accept"),
        ({"regex": "YES"}, "yes", "reject"),
        ({"regex": "end", "max_chars": 5}, "123456 end", "reject"),
        ({"regex": "secret"}, "<think>secret</think>open", "reject"),
        ({"choice": ["yes", "no"]}, "Answer: Yes.", "accept"),
        ({"choice": ["yes", "no"]}, "I know not what", "reject"),
        ({"choice": ["A", "B"]}, "a banana", "reject"),
        ({"choice": ["A", "B"]}, "The correct answer is (B)", "accept"),
        ({"choice": [1, 2]}, "Answer: 2", "accept"),
        ({"choice": ["yes", "no"]}, "First yes.\nAnswer: maybe", "reject"),
        ({"contains": "Paris"}, "in paris", "accept"),
        ({"contains": "Paris", "ignore_case": False}, "in paris", "reject"),
        ({"contains": ["a1", "b1"]}, "a1", "reject"),
        ({"contains": ["a1", "b1"], "mode": "any"}, "a1", "accept"),
        ({"contains": {"text": "a1", "absent": ["zz"]}}, "a1 zz", "reject"),
    ],
)
def test_text_checks(spec: Any, text: str, decision: str) -> None:
    verdict = judged(spec, text)
    assert verdict.decision == decision
    assert verdict.verifier in str(spec)


def test_the_longer_option_wins_and_the_last_mention_counts() -> None:
    assert chosen_option("I'd say New York", ("York", "New York")) == "New York"
    assert chosen_option("Not London but Paris", ("London", "Paris")) == "Paris"
    assert chosen_option("Answer: London, not Paris", ("London", "Paris")) == "London"


def test_an_unreadable_answer_that_was_cut_off_failed_for_being_cut_off() -> None:
    verdict = judged({"regex": "end$"}, reply("no en", finish_reason="length"))
    assert (verdict.decision, verdict.failure) == ("reject", "truncated")
