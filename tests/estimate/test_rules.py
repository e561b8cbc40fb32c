# ruff: noqa: RUF001 - many scripts are the subject here
from __future__ import annotations

from typing import Any

import pytest

from governor.estimate import RuleEstimator, features
from governor.estimate.rules import Difficulty, difficulty, unreadable
from governor.protocols import Terms
from governor.records import Rung, Step

TERMS = Terms(app="test", ladder=(Rung(id="a", model="a"), Rung(id="b", model="b")))


def rate(text: str, **changes: Any) -> Difficulty:
    messages = changes.pop("messages", ({"role": "user", "content": text},))
    return difficulty(features(Step(id="s", messages=messages, **changes)))


EASY = [
    "What is 3 + 4?",
    "yes",
    "Hello!",
    "What is the capital of France?",
    "Extract the customer's name from: 'Hi, I am Anna Schmidt and my order is late.'",
    "Classify the sentiment of this review as positive or negative: 'I love it.'",
]
HARD = [
    "Compute 48713298 * 928361 without a calculator.",
    "Prove that there are infinitely many primes p such that p + 2 has at most two prime factors.",
    "Let $a_1, \\ldots, a_n$ be positive reals with $\\sum a_i = 1$. Find the maximum of $\\prod (1+a_i)$"
    " subject to $a_i \\leq \\frac{1}{2}$.",
    "Implement a thread-safe LRU cache in Python. It must support get and put in constant time, must never exceed"
    " its capacity, should expire entries, and must not use functools. Then write tests.",
]


def test_trivial_things_are_easy_and_hard_things_hard() -> None:
    easy = {text: rate(text).mean for text in EASY}
    hard = {text: rate(text).mean for text in HARD}
    assert max(easy.values()) < -1.0, easy
    assert min(hard.values()) > 0.8, hard


def test_more_digits_are_harder() -> None:
    means = [rate(f"What is {n} * {n}?").mean for n in ("3", "37", "371", "3719", "37195")]
    assert means == sorted(means)
    assert means[-1] - means[0] > 2


QUESTIONS = {
    "de": ("Was ist die Hauptstadt von Frankreich?", "Beweise, dass es unendlich viele Primzahlen gibt."),
    "es": ("¿Cuál es la capital de Francia?", "Demuestra que hay infinitos números primos."),
    "fr": ("Quelle est la capitale de la France ?", "Démontrez qu'il existe une infinité de nombres premiers."),
    "tr": ("Fransa'nın başkenti neresidir?", "Sonsuz sayıda asal sayı olduğunu kanıtlayın."),
    "pl": ("Jaka jest stolica Francji?", "Udowodnij, że istnieje nieskończenie wiele liczb pierwszych."),
    "vi": ("Thủ đô của nước Pháp là gì?", "Chứng minh rằng có vô số số nguyên tố."),
    "ru": ("Какая столица Франции?", "Докажите, что простых чисел бесконечно много."),
    "zh": ("法国的首都是哪里？", "证明存在无穷多个素数。"),
    "ja": ("フランスの首都はどこですか？", "素数が無限に存在することを証明してください。"),
    "ko": ("프랑스의 수도는 어디입니까?", "소수가 무한히 많다는 것을 증명하시오."),
    "ar": ("ما هي عاصمة فرنسا؟", "أثبت أن هناك عددا لا نهائيا من الأعداد الأولية."),
    "hi": ("फ्रांस की राजधानी क्या है?", "सिद्ध कीजिए कि अभाज्य संख्याएँ अनंत हैं।"),
    "he": ("מהי בירת צרפת?", "הוכח שיש אינסוף מספרים ראשוניים."),
    "th": ("เมืองหลวงของฝรั่งเศสคือที่ไหน", "จงพิสูจน์ว่ามีจำนวนเฉพาะเป็นอนันต์"),
}


@pytest.mark.parametrize("language", QUESTIONS)
def test_a_language_that_cannot_be_read_is_uncertain_and_not_easy(language: str) -> None:
    english = rate("What is the capital of France?")
    for text in QUESTIONS[language]:
        seen = rate(text)
        assert -0.5 <= seen.mean <= 0.8, text
        assert seen.sd >= english.sd + 0.3, text
        assert any("language" in why for why in seen.reasons)


def test_long_foreign_prompts_are_recognised_and_english_ones_are_not_foreign() -> None:
    german = "Ein Händler verkauft im Mai halb so viele Bücher wie im April. Im April waren es 48. Wie viele waren es?"
    assert rate(german).sd > 1.3
    assert unreadable(features(Step(id="s", messages=({"role": "user", "content": german},)))) > 0.9
    for text in (*EASY, *HARD, "12 * 13 = ?", "Write quicksort in Python"):
        assert unreadable(features(Step(id="s", messages=({"role": "user", "content": text},)))) < 0.5, text


def test_signs_count_in_every_language() -> None:
    assert rate("计算 48713298 * 928361").mean > rate("法国的首都是哪里？").mean + 1


def test_yes_inside_a_long_agent_history_is_not_trivial() -> None:
    alone = rate("yes")
    history = (
        {"role": "system", "content": "You are a careful engineer."},
        {"role": "user", "content": "Refactor the scheduler so that no deadlock can occur. " * 10},
        {"role": "assistant", "content": "I traced the lock order and found two cycles. " * 60},
        {"role": "tool", "content": "test log line\n" * 300},
        {"role": "assistant", "content": "Shall I implement the new lock hierarchy and migrate every caller?"},
        {"role": "user", "content": "yes"},
    )
    inside = rate("", messages=history)
    assert inside.mean > alone.mean + 2
    assert inside.mean > 0
    assert inside.sd > alone.sd


def test_what_already_went_wrong_makes_a_step_harder() -> None:
    plain = rate("List the open invoices of this customer and their sums.").mean
    means = [
        rate("List the open invoices of this customer and their sums.", state={name: count}).mean
        for name in ("tool_errors", "failed_attempts")
        for count in (1, 2)
    ]
    assert plain < means[0] < means[1]
    assert plain < means[2] < means[3]


def test_the_strongest_reason_comes_first() -> None:
    seen = rate("Prove that the sum of two odd numbers is even.", state={"tool_errors": 1})
    assert seen.reasons[0] == "a proof or derivation"
    assert "1 tool errors" in seen.reasons


def test_the_policy_overrides_the_mean_and_says_so() -> None:
    step = Step(id="s", messages=({"role": "user", "content": "What is 3 + 4?"},))
    estimator = RuleEstimator()
    free = estimator.estimate(step, TERMS)
    stated = estimator.estimate(step, Terms(app="test", ladder=TERMS.ladder, difficulty=0.9))
    assert free.difficulty < 0.2
    assert stated.difficulty == pytest.approx(0.9, abs=0.05)
    assert stated.reasons[0] == "the policy states difficulty 0.9"
    for end in (0.0, 1.0):
        told = estimator.estimate(step, Terms(app="test", ladder=TERMS.ladder, difficulty=end))
        assert abs(told.difficulty - end) < 0.06


def test_an_estimate_is_the_same_every_time() -> None:
    step = Step(id="s", messages=({"role": "user", "content": HARD[3]},))
    one, two = RuleEstimator().estimate(step, TERMS), RuleEstimator().estimate(step, TERMS)
    assert (one.weights == two.weights).all()
    assert one.reasons == two.reasons
