from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from governor.errors import LedgerError
from governor.estimate.evidence import BANDS, CLUSTERS, HEADS, OTHERS, TRIAL, Evidence
from governor.estimate.recalibration import Observed, Recalibration
from governor.shelf import LARGEST

outcomes = st.lists(
    st.tuples(st.sampled_from("abc"), st.sampled_from(["", "x", "y", "z"]), st.floats(0.02, 0.98), st.booleans()),
    max_size=12,
)


def learned(seen: list[tuple[str, str, float, bool]]) -> Evidence:
    evidence = Evidence()
    for head, cluster, p, accepted in seen:
        sketch = np.full(BANDS, len(cluster) + ord(cluster[0]) if cluster else 0, dtype=np.uint32)
        evidence = evidence.faded(1).plus(Recalibration().learned(Observed(head, cluster, p, accepted), sketch))
    return evidence


def table(evidence: Evidence) -> dict[tuple[str, str], list[float]]:
    return {
        (cluster, head): evidence.sums[row, column].tolist()
        for row, cluster in enumerate(evidence.clusters)
        for column, head in enumerate(evidence.heads)
        if evidence.sums[row, column].any()
    }


@given(outcomes, outcomes)
def test_adding_loses_nothing_and_does_not_mind_the_order(
    one: list[tuple[str, str, float, bool]], two: list[tuple[str, str, float, bool]]
) -> None:
    a, b = learned(one), learned(two)
    both, other = a.plus(b), b.plus(a)
    assert table(both).keys() == table(other).keys() == table(a).keys() | table(b).keys()
    for cell, sums in table(both).items():
        parts = np.array(table(a).get(cell, [0.0] * 5)) + np.array(table(b).get(cell, [0.0] * 5))
        assert sums == pytest.approx(parts)
        assert sums == pytest.approx(table(other)[cell])
    assert both.count == pytest.approx(a.count + b.count)
    assert both.losses == pytest.approx(a.losses + b.losses)


@given(outcomes, st.integers(1, 5))
def test_handing_in_at_once_or_piecewise_is_the_same(seen: list[tuple[str, str, float, bool]], cut: int) -> None:
    """What a flush does: the stored evidence ages by the outcomes since, then these are added."""
    first, second = seen[:cut], seen[cut:]
    whole = learned(seen)
    pieces = learned(first).faded(len(second)).plus(learned(second))
    assert table(pieces).keys() == table(whole).keys()
    for cell, sums in table(pieces).items():
        assert sums == pytest.approx(table(whole)[cell])
    assert pieces.losses == pytest.approx(whole.losses)


@given(outcomes)
def test_bytes_and_back(seen: list[tuple[str, str, float, bool]]) -> None:
    evidence = learned(seen)
    back = Evidence.from_bytes(evidence.to_bytes())
    assert (back.heads, back.clusters, back.count) == (evidence.heads, evidence.clusters, evidence.count)
    for name in ("sums", "sketches", "losses"):
        assert np.array_equal(getattr(back, name), getattr(evidence, name))
    assert back.to_bytes() == evidence.to_bytes()
    assert back.plus(evidence).count == 2 * evidence.count  # arrays that were read can be gone on from


def test_the_largest_state_fits_a_shelf() -> None:
    heads = tuple(f"a-long-name-of-a-rung-{number}" for number in range(HEADS))
    clusters = (OTHERS, *(f"some-node-of-an-agent|{number:08x}" for number in range(CLUSTERS - 1)))
    full = Evidence(heads, clusters, np.zeros((CLUSTERS, BANDS), dtype=np.uint32), np.full((CLUSTERS, HEADS, 5), 0.123))
    assert len(full.to_bytes()) < 0.7 * LARGEST
    assert len(full.plus(learned([("new rung", "new", 0.5, True)])).heads) == HEADS


def test_what_priors_foretold_is_forgotten_sooner_than_what_outcomes_taught() -> None:
    evidence = learned([("a", "x", 0.4, True)] * 3)
    later = evidence.faded(TRIAL)
    assert later.losses == pytest.approx(evidence.losses / 2)
    assert later.count > 0.8 * evidence.count


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": "something else"}, "can't be read"),
        ({"version": 2}, r"newer version \(2, known is 1\): upgrade"),
        ({"sums": "AAAA"}, "can't be read"),
        ({"sums": "?"}, "can't be read"),
        ({"clusters": ["x"]}, "can't be read"),
        ({"clusters": ["", "x", "x"]}, "can't be read"),
        ({"count": "many"}, "can't be read"),
        ({"count": float("nan")}, "not finite"),
        ({"losses": None}, "can't be read"),
    ],
)
def test_a_state_that_is_none_is_one_clear_line(change: dict[str, object], message: str) -> None:
    state = json.loads(learned([("a", "x", 0.5, True)]).to_bytes())
    with pytest.raises(LedgerError, match=message) as caught:
        Evidence.from_bytes(json.dumps({**state, **change}).encode())
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("value", [b"", b"{", b"[]", b"{}", b"null", b"\xff\xfe"])
def test_bytes_that_are_none_are_one_clear_line(value: bytes) -> None:
    with pytest.raises(LedgerError, match="can't be read"):
        Evidence.from_bytes(value)
