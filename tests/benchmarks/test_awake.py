from __future__ import annotations

import os
from pathlib import Path

import pytest

from benchmarks.awake import awake


@pytest.mark.skipif(not hasattr(os, "SCHED_IDLE"), reason="SCHED_IDLE is Linux's")
def test_each_processor_has_a_process_that_gives_way_and_none_is_left() -> None:
    with awake() as spinning:
        assert {os.sched_getscheduler(one) for one in spinning} == {os.SCHED_IDLE}
        places = [os.sched_getaffinity(one) for one in spinning]
        assert sorted(map(sorted, places)) == [[one] for one in sorted(os.sched_getaffinity(0))]
    assert not [one for one in spinning if Path(f"/proc/{one}").exists()]
