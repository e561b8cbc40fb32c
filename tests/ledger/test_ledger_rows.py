from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from governor.ledger.admission import Hold
from governor.ledger.rows import HOLD_COLUMNS, SUMS_COLUMNS, hold_of, limits_text, sums_of, sums_row
from governor.ledger.sums import DIMENSIONS, Sums, booking, figures
from governor.records import Amount, Limit, Window

numbers = st.integers(0, 2**53)
figured = st.lists(numbers, min_size=len(DIMENSIONS), max_size=len(DIMENSIONS))
seconds = st.floats(0, 1e10)
windows = st.builds(Window, st.none() | seconds, st.none(), st.none() | seconds)
sliding = st.builds(Window, sliding=st.floats(1, 1e7))


@given(st.text(), windows | sliding, figured, figured, numbers, seconds, st.booleans())
def test_sums_come_back_as_they_went(
    scope: str, window: Window, spent: list[int], reserved: list[int], count: int, at: float, reset: bool
) -> None:
    grains = None if window.sliding is None else {7: spent, 10**9: reserved}
    sums = Sums(scope, window, spent, reserved, [0] * len(DIMENSIONS), count, count, at, grains=grains)
    if reset:
        sums.since = at
    row = (scope, *sums_row(sums))
    assert len(row) == len(SUMS_COLUMNS)
    assert sums_of(row) == sums


@given(
    st.text(), figured, st.lists(st.builds(Limit, st.text(), tokens=numbers, answer=numbers, window=windows)), seconds
)
def test_holds_come_back_as_they_went(key: str, amount: list[int], limits: list[Limit], moment: float) -> None:
    held = Amount(*amount)
    hold = Hold(key, held, tuple(limits), "open", True, moment, booking(held))
    row = (key, "open", *figures(held), limits_text(hold.limits), 1, moment)
    assert len(row) == len(HOLD_COLUMNS)
    assert hold_of(row) == hold
