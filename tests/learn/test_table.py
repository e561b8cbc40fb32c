"""Rows as arrays: labels, costs, lengths and groups worked by hand, folds and draws that repeat."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from governor.errors import LadderError, RecordError
from governor.learn.chance import uniform
from governor.learn.ladder import Checking, Ladder, RungCost, load_ladder
from governor.learn.rows import Row, read_rows
from governor.learn.table import Table, draw, folds, normalised, split
from governor.learn.tabulate import tabulate

SHARED = Path(os.environ.get("GOVERNOR_DATA", Path(__file__).parents[3] / "shared" / "data"))
needs_data = pytest.mark.skipif(not SHARED.is_dir(), reason="the recorded outcomes are not here (GOVERNOR_DATA)")
nan = float("nan")

LADDER = Ladder(name="two", records=Path("rows.jsonl"), rungs=("low", "high"), unit="tokens")


def row(qid: str = "q1", rung: str = "low", **more: Any) -> Row:
    told: dict[str, Any] = {"correct": 1.0, "output_tokens": 10.0, "line": 3, "path": "r"}
    return Row(qid=qid, rung=rung, **(told | more))


def pair(qid: str = "q1", **more: Any) -> list[Row]:
    return [row(qid, "low", **more), row(qid, "high", **more)]


def same(found: Any, wanted: Any) -> bool:
    return np.array_equal(np.asarray(found, dtype=np.float64), np.asarray(wanted, dtype=np.float64), equal_nan=True)


def test_rows_become_arrays_in_the_order_of_their_questions() -> None:
    rows = [
        row("b", "other", question="What is b?"),  # not in the ladder, but the text stands here
        row("b", "high", correct=0.25, n_samples=4, output_tokens=30.0, answer_text=" Forty\u00a0TWO "),
        row("a", "low", question="What is a?", correct=0.0),
        row("b", "low", correct=None, output_tokens=None),
    ]
    table = tabulate(rows, LADDER)
    assert (table.qids, table.questions, table.nodes) == (("b", "a"), ("What is b?", "What is a?"), ("default",) * 2)
    assert (table.rungs, table.samples) == (("low", "high"), ("",))
    assert same(table.correct[:, :, 0], [[nan, 0.25], [0.0, nan]])
    assert same(table.drawn_from[:, :, 0], [[1, 4], [1, nan]])
    assert same(table.output_tokens[:, :, 0], [[nan, 30], [10, nan]])
    assert same(table.cost, table.output_tokens)
    assert table.answers[:, :, 0].tolist() == [[None, "forty two"], [None, None]]
    assert table.usable[:, :, 0].tolist() == [[False, True], [True, False]]
    assert dict(table.missing) == {"low": 1, "high": 1}
    assert (table.verdict, table.verifier, table.noisy) == (None, None, None)


def test_samples_are_columns_in_natural_order() -> None:
    rows = [row("q", "low", sample=f"seed{n}", output_tokens=float(n)) for n in (10, 2, 1)] + [row("q", "high")]
    table = tabulate(rows, LADDER)
    assert table.samples == ("", "seed1", "seed2", "seed10")
    assert same(table.output_tokens[0], [[nan, 1, 2, 10], [10, nan, nan, nan]])


def test_a_strict_label_makes_partial_credit_wrong() -> None:
    rows = [row(correct=0.98), row(rung="high", correct=0.99)]
    assert same(tabulate(rows, replace(LADDER, correct_at_least=0.99)).correct.ravel(), [0, 1])
    assert same(tabulate(rows, LADDER).correct.ravel(), [0.98, 0.99])


def test_flagged_rows_are_dropped_and_with_them_questions_that_have_no_other() -> None:
    rows = [*pair("q1", fields={"flag": 0}), *pair("q2", fields={"flag": 1}), row("q3", fields={"flag": True})]
    rows.append(row("q3", "high"))
    table = tabulate(rows, replace(LADDER, drop="flag"))
    assert table.qids == ("q1", "q3")
    assert dict(table.missing) == {"low": 1, "high": 0}


def test_a_reply_to_feedback_is_not_an_outcome_of_the_question() -> None:
    rows = [
        *pair(),
        row(sample="1", correct=0.0, fields={"mode": "feedback"}),
        row(sample="2", fields={"mode": "fresh"}),
    ]
    assert tabulate(rows, LADDER).samples == ("", "2")


def test_a_verdict_is_the_label_where_nobody_knows_better() -> None:
    rows = [
        row(correct=None, verdict="reject", verifier="tests"),
        row(rung="high", correct=1.0, verdict="reject", verifier="judge"),
        row("q2", correct=None, verdict="unsure", verifier="tests"),
    ]
    table = tabulate(rows, LADDER)
    assert table.verdict is not None
    assert table.verifier is not None
    assert table.noisy is not None
    assert same(table.correct[:, :, 0], [[0, 1], [nan, nan]])
    assert same(table.verdict[:, :, 0], [[0, 0], [nan, nan]])
    assert table.verifier[:, :, 0].tolist() == [["tests", "judge"], [None, None]]
    assert table.noisy[:, :, 0].tolist() == [[True, False], [False, False]]


def test_usd_takes_reported_tokens_else_a_quarter_of_the_characters_and_assumed_output() -> None:
    costs = {
        "low": RungCost(input_per_million=1.0, output_per_million=10.0),
        "high": RungCost(input_per_million=2.0, output_per_million=20.0, assumed_output_tokens=3000.0),
    }
    ladder = replace(LADDER, unit="usd", costs=costs)
    text = "x" * 400  # 100 tokens
    rows = [
        row("q1", "low", question=text, output_tokens=50.0),
        row("q1", "high", output_tokens=None),
        row("q2", "low", input_tokens=7.0, output_tokens=None),
        row("q2", "high", input_tokens=7.0, output_tokens=1.0),
    ]
    cost = tabulate(rows, ladder).cost[:, :, 0]
    assert cost == pytest.approx(np.array([[100e-6 + 500e-6, 200e-6 + 60_000e-6], [nan, 14e-6 + 20e-6]]), nan_ok=True)


def test_weights_and_reported_money() -> None:
    weights = {"low": RungCost(weight=0.15), "high": RungCost(weight=5.0)}
    rows = [*pair("q1", cost_usd=0.5), row("q2", "low", cost_usd=0.25)]
    assert same(tabulate(rows, replace(LADDER, unit="weight", costs=weights)).cost[:, :, 0], [[0.15, 5], [0.15, nan]])
    assert same(tabulate(rows, replace(LADDER, unit="reported_usd")).cost[:, :, 0], [[0.5, 0.5], [0.25, nan]])


def test_a_thought_is_cut_at_its_rungs_budget() -> None:
    low, high = (257.0, 257.0, 200.0), (900.0, 300.0, 200.0)
    rows = [row(f"q{n}", "low", output_tokens=tokens) for n, tokens in enumerate(low)]
    rows += [row(f"q{n}", "high", output_tokens=tokens) for n, tokens in enumerate(high)]
    thought = tabulate(rows, replace(LADDER, continues=True))
    assert thought.finished[:, 0, 0].tolist() == [False, False, True]
    assert thought.finished[:, 1, 0].tolist() == [True, True, True]  # 900 is the longest, not a budget
    assert tabulate(rows, LADDER).finished.all()
    assert not tabulate([row(truncated=True), row(rung="high")], LADDER).finished[0, 0, 0]


def test_scores_are_the_verifiers_field_and_must_be_shares() -> None:
    ladder = replace(LADDER, checking=Checking(kind="score", field="p"))
    rows = [row(fields={"p": 0.75}), row(rung="high", fields={"p": None})]
    assert same(tabulate(rows, ladder).score.ravel(), [0.75, nan])
    for wrong in (1.5, "high", nan):
        with pytest.raises(RecordError, match=r"^r:3: p: a verifier's score must be 0\.\.1, is "):
            tabulate([*rows, row("q2", fields={"p": wrong})], ladder)


def test_questions_of_equal_text_are_one_group() -> None:
    rows = [
        *pair("q1", question="What  is\nit?"),
        *pair("q2", question="WHAT IS IT?"),
        *pair("q3", question="What is that?"),
        *pair("q4"),
        *pair("q5"),
    ]
    groups = tabulate(rows, LADDER).groups
    assert groups[0] == groups[1]
    assert len(set(groups)) == 4


def test_groups_and_nodes_by_field_or_by_pattern_on_the_qid() -> None:
    rows = [*pair("rg-easy-ab-0-x", fields={"domain": "sums"}), *pair("rg-easy-ab-12-y", fields={"domain": "words"})]
    assert tabulate(rows, LADDER, group_by="domain").groups == ("sums", "words")
    assert tabulate(rows, LADDER, node_field="domain").nodes == ("sums", "words")
    assert tabulate(rows, LADDER, group_by=r"/^rg-easy-(.*)-\d+-/").groups == ("ab", "ab")
    assert tabulate(pair(node="plan"), LADDER).nodes == ("plan",)


OTHERS = [row("q", "o4-mini:low"), row("q", "gpt-4o"), row("q", "o4-mini:medium"), row("q", "low")]


@pytest.mark.parametrize(
    ("rows", "changes", "options", "said"),
    [
        ([], {}, {}, "rows.jsonl: no rows"),
        (
            OTHERS,
            {"rungs": ("low", "o4-mini:med")},
            {},
            "rows.jsonl: rungs: no row that counts has rung 'o4-mini:med' "
            "(not in the ladder, closest first: o4-mini:medium, o4-mini:low, gpt-4o)",
        ),
        (
            pair(fields={"flagged": 1}),
            {"drop": "flaged"},
            {},
            "rows.jsonl: drop: no row has a field 'flaged' (did you mean 'flagged'?)",
        ),
        (
            pair(fields={"p_top": 1}),
            {"checking": Checking(kind="score", field="p_tpo")},
            {},
            "rows.jsonl: verifier.field: no row has a field 'p_tpo' (did you mean 'p_top'?)",
        ),
        (
            pair(fields={"domain": "d"}),
            {},
            {"node_field": "doman"},
            "rows.jsonl: --node-field: no row has a field 'doman' (did you mean 'domain'?)",
        ),
        (
            pair(fields={"domain": "d"}),
            {},
            {"group_by": "family"},
            "rows.jsonl: --group-by: no row has a field 'family' (fields: domain)",
        ),
        ([], {}, {"node_field": "gold"}, "--node-field: 'gold' is nothing that a forecast may see"),
        ([], {}, {"group_by": "/^q/"}, "--group-by: /^q/ has no group (put (...) around the name)"),
        (pair(), {}, {"group_by": "/(x)/"}, "--group-by: /(x)/ does not match qid 'q1'"),
        (
            [row(), row(rung="high", output_tokens=None)],
            {},
            {},
            "rows.jsonl: cost: the cost of rung 'high' is unknown: no row of it has output_tokens: "
            "state weights, or USD with assumed_output_tokens",
        ),
    ],
)
def test_a_ladder_that_does_not_fit_its_rows_is_one_line(
    rows: list[Row], changes: dict[str, Any], options: dict[str, Any], said: str
) -> None:
    with pytest.raises(LadderError) as refused:
        tabulate(rows, replace(LADDER, **changes), **options)
    assert str(refused.value) == said


def test_a_wrong_pattern_says_what_is_wrong_with_it() -> None:
    with pytest.raises(LadderError, match=r"--group-by: /\(/ is no regular expression: .*unterminated"):
        tabulate([], LADDER, group_by="/(/")


def test_costs_may_be_unknown_where_they_are_not_asked_for() -> None:
    table = tabulate(pair(output_tokens=None), LADDER, costed=False)
    assert np.isnan(table.cost).all()
    assert not table.usable.any()


def many(count: int) -> Table:
    return tabulate((r for n in range(count) for r in pair(f"q{n}", correct=n / count, verdict="accept")), LADDER)


@pytest.mark.parametrize(
    ("rows", "at"), [([2, 0], [2, 0]), (np.array([False, True, True]), [1, 2]), ([], []), (np.zeros(3, np.bool_), [])]
)
def test_taking_questions_keeps_every_array_in_step(rows: Any, at: list[int]) -> None:
    table = many(3)
    taken = table.take(rows)
    assert taken.qids == tuple(f"q{n}" for n in at)
    assert same(taken.correct, table.correct[np.array(at, dtype=np.intp)])
    assert taken.verdict is not None
    assert taken.verdict.shape == (len(at), 2, 1) == taken.answers.shape
    assert taken.rungs == table.rungs


def test_a_mean_over_hidden_samples_becomes_one_outcome() -> None:
    table = many(400)
    drawn = draw(table, 7)
    assert set(np.unique(drawn.correct)) == {0.0, 1.0}
    assert drawn.correct.mean() == pytest.approx(0.5, abs=0.05)
    for q, k in ((3, 0), (200, 1), (399, 1)):
        assert drawn.correct[q, k, 0] == (uniform(7, f"q{q}", table.rungs[k]) < q / 400)
    assert same(draw(table, 7).correct, drawn.correct)
    assert not same(draw(table, 8).correct, drawn.correct)
    assert 0 < table.correct[1, 0, 0] < 1, "the table itself is not changed"
    assert same(draw(table.take([9, 3]), 7).correct, drawn.correct[[9, 3]]), "a draw depends on its question alone"


def test_partial_credit_of_a_named_sample_is_not_drawn() -> None:
    table = tabulate(pair(sample="0", correct=0.5), LADDER)
    assert same(draw(table, 1).correct, table.correct)


def test_the_draw_is_the_same_on_every_machine() -> None:
    assert uniform(0, "q", "low") == 0.9014372247773897
    assert uniform(0, "ab", "c") != uniform(0, "a", "bc")


@given(st.integers(), st.lists(st.text(max_size=5), max_size=3))
def test_a_draw_is_a_share(seed: int, key: list[str]) -> None:
    assert 0 <= uniform(seed, *key) < 1


@given(st.lists(st.integers(0, 30), min_size=40, max_size=200), st.integers(2, 5), st.integers())
def test_folds_keep_groups_whole_and_balanced(groups: list[int], k: int, seed: int) -> None:
    names = [f"g{n}" for n in groups] + [f"extra{n}" for n in range(k)]
    found = folds(names, k, seed)
    by_group: dict[str, set[int]] = {}
    for name, fold in zip(names, found.tolist(), strict=True):
        by_group.setdefault(name, set()).add(fold)
    assert all(len(within) == 1 for within in by_group.values())
    sizes = np.bincount(found, minlength=k)
    assert sizes.max() - sizes.min() <= max(Counter(names).values())
    assert np.array_equal(folds(names, k, seed), found)


def test_folds_do_not_depend_on_the_order_of_questions_and_change_with_the_seed() -> None:
    names = [f"g{n}" for n in range(60)]
    found = folds(names, 5, 1)
    assert np.array_equal(folds(names[::-1], 5, 1), found[::-1])
    assert not np.array_equal(folds(names, 5, 2), found)
    assert np.bincount(found).tolist() == [12] * 5


def test_too_few_groups_for_the_folds_are_refused() -> None:
    with pytest.raises(RecordError, match="5 folds need 5 groups of questions or more, and there are 2"):
        folds(["a", "b", "a"], 5, 0)


def test_a_question_that_is_tested_is_not_trained_on_under_another_group() -> None:
    texts = {"q1": "same?", "q2": "Same?", "q3": "other?", "q4": "", "q5": ""}
    rows = [r for qid, text in texts.items() for r in pair(qid, question=text, fields={"domain": qid})]
    table = tabulate(rows, LADDER, group_by="domain")
    train, test = split(table, np.array([0, 1, 1, 0, 1]), 0)
    assert test.tolist() == [True, False, False, True, False]
    assert train.tolist() == [False, False, True, False, True]


def test_normalised_text_ignores_case_space_and_forms() -> None:
    assert normalised("  \ufb01ve\t Straße ") == normalised("FIVE STRASSE") == "five strasse"


def recorded(name: str) -> tuple[Ladder, Iterable[Row]]:
    ladder = load_ladder(SHARED / "ladders" / f"{name}.json")
    return ladder, read_rows(ladder.records, strict=True)


@needs_data
def test_recorded_thoughts_are_cut_where_their_traces_went_on() -> None:
    ladder, rows = recorded("thinking_budgets")
    kept = list(rows)
    table = tabulate(kept, ladder)
    assert table.correct.shape == (75, 8, 10)
    assert (table.samples[0], table.samples[-1]) == ("seed0", "seed9")
    at = {name: n for n, name in enumerate(table.qids)}
    for found in kept:  # what a forecast may not see tells whether the cut was found without it
        if found.rung in ladder.rungs:
            cell = at[found.qid], ladder.rungs.index(found.rung), table.samples.index(found.sample)
            assert table.finished[cell] == (found.fields["prefix_tokens"] >= found.fields["trace_tokens"])


@needs_data
def test_recorded_ladders_fill_their_tables() -> None:
    ladder, rows = recorded("routellm_mmlu")
    table = tabulate(rows, ladder)
    assert table.correct.shape == (14_037, 2, 1)  # five questions are flagged
    assert table.usable.all()
    assert len(set(table.groups)) < len(table.groups)
    assert table.correct.mean(axis=(0, 2)) == pytest.approx([0.6809, 0.8059], abs=1e-4)
