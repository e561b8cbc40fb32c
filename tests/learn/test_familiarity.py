"""How far questions of the records lie from one another, and which are found foreign."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from governor.estimate.familiar import COUNTS, Familiar, unseen_share
from governor.estimate.hashed import Sparse
from governor.estimate.learned import Seen, numbers_of, seen_of
from governor.learn.familiarity import TAKEN, _form, _furthest, _unseen, fit_familiar
from governor.learn.heads import Design, inverse_frequency
from governor.records import Step

WORDS = ("river", "count", "apple", "seven", "garden", "winter", "table", "paper", "light", "stone", "music", "bread")


def step(text: str) -> Step:
    return Step(id="s", messages=({"role": "user", "content": text},))


def plain(questions: int, seed: int) -> list[str]:
    rng = np.random.default_rng(seed)
    sizes = rng.integers(8, 30, questions)
    return [f"How many {' '.join(rng.choice(WORDS, size))} are there in {rng.integers(9)}?" for size in sizes]


def known(texts: list[str]) -> tuple[Design, Familiar]:
    design = Design.of([step(text) for text in texts])
    return design, fit_familiar(design, np.arange(len(texts)) % 5)


def seen(design: Design, text: str) -> Seen:
    return seen_of(step(text), inverse_frequency(design.counts))


def test_questions_of_another_form_or_of_other_words_are_foreign_and_like_ones_are_not() -> None:
    design, familiar = known(plain(400, 0))
    found = [familiar.foreign(one.words, one.numbers) for one in (seen(design, text) for text in plain(400, 1))]
    assert sum(found) <= 8  # 400 * TAKEN are 2
    code = seen(design, "def river(count):\n    return [apple for apple in count if apple]\n" * 4)
    assert familiar.foreign(code.words, code.numbers)
    other = seen(design, "How many zebras quietly juggle purple lanterns beyond the old harbour in 3?")
    assert unseen_share(other.words) > familiar.unseen
    assert familiar.foreign(other.words, other.numbers)


@pytest.mark.parametrize("text", [*plain(3, 2), "quite other words", "", "river unknown apple"])
def test_serving_finds_the_share_that_fitting_computes_for_many(text: str) -> None:
    design, _ = known(plain(50, 0))
    idf = inverse_frequency(design.counts)
    many = _unseen(Design.of([step(text)]).counts, idf)
    assert unseen_share(seen_of(step(text), idf).words) == many[0]


def test_a_count_that_never_varied_says_nothing() -> None:
    design, familiar = known(plain(200, 0))
    numbers = numbers_of(step(plain(1, 1)[0]))
    constant = COUNTS[design.numbers[:, COUNTS].std(axis=0) < 1e-6]
    assert constant.size
    moved = numbers.copy()
    moved[constant] += 5.0
    words = seen(design, plain(1, 1)[0]).words
    assert not familiar.foreign(words, numbers)
    assert not familiar.foreign(words, moved)


def test_length_makes_no_question_foreign() -> None:
    design, familiar = known([f"{' '.join(text.split()[:9])}?" for text in plain(200, 0)])
    for words in (WORDS[:1], WORDS, 20 * WORDS):
        one = seen(design, f"How many {' '.join(words)}?")
        assert familiar.foreign(Sparse(one.words.at, np.ones(len(one.words.at))), one.numbers) is False


@given(st.integers(0, 2**32 - 1), st.floats(0.1, 100.0))
def test_distance_knows_no_unit_and_is_about_the_number_of_counts_on_average(seed: int, unit: float) -> None:
    rng = np.random.default_rng(seed)
    counts = rng.normal(size=(300, 4)) @ rng.normal(size=(4, 4)) + 3.0
    centre, whitening = _form(counts)
    distance = (((counts - centre) @ whitening) ** 2).sum(axis=1)
    scaled_centre, scaled = _form(counts * unit)
    assert (((counts * unit - scaled_centre) @ scaled) ** 2).sum(axis=1) == pytest.approx(distance, rel=1e-6)
    assert 0.0 < distance.mean() <= 4.0 + 1e-9


@given(st.integers(1, 2000))
def test_no_more_than_the_share_taken_lie_further(questions: int) -> None:
    values = np.random.default_rng(questions).permutation(np.arange(float(questions)))
    beyond = (values > _furthest(values)).sum()
    assert beyond <= TAKEN * questions
    assert beyond >= TAKEN * questions - 2
