"""What a run has behind it: rewound, resumed, written and read."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from governor_langgraph.blame import Back, Done
from governor_langgraph.past import MOST_STEPS, Made, Past
from governor_langgraph.place import Place


def done(node: str, at: int, task: str = "", rung: int = 0) -> Done:
    return Done(node, task or f"{node}:{at}", f"{at:02}", rung, 2, 0.5, 10)


def made(number: int, at: int, *, ended: bool = True) -> Made:
    return Made(number, "mail", "digest", f"call{number}", f"{at:02}", f"t{at}", 0, 1, ended)


DONES = st.lists(st.builds(done, st.sampled_from("abc"), st.integers(0, 9)), max_size=6, unique_by=lambda one: one.task)
CALLS = st.lists(st.integers(0, 9), max_size=6).map(lambda all_: [made(n, at) for n, at in enumerate(all_)])
BACKS = st.builds(
    Back, st.just("check"), st.sampled_from("abc"), st.integers(0, 9).map("{:02}".format), st.integers(0, 2)
)


@st.composite
def pasts(draw: st.DrawFn) -> Past:
    calls, cut = draw(CALLS), draw(st.integers(0, 6))
    backs = tuple(draw(st.lists(BACKS, max_size=2)))
    return Past("run", tuple(draw(DONES)), backs, tuple(calls[:cut]), tuple(calls[cut:]), draw(st.integers(0, 3)))


@given(pasts())
def test_it_reads_what_it_wrote(past: Past) -> None:
    assert Past.read(past.written()) == past


@given(pasts(), BACKS)
def test_a_rewind_forgets_steps_but_no_call_and_no_rewind(past: Past, back: Back) -> None:
    after = past.after(back)
    assert {one.number for one in after.calls} == {one.number for one in past.calls}
    assert all(one.checkpoint < back.checkpoint for one in after.done)
    assert all(one.checkpoint < back.checkpoint for one in after.made)
    assert [one for one in past.done if one not in after.done] == [
        one for one in past.done if one.checkpoint >= back.checkpoint
    ]
    assert after.backs == (*past.backs, back)
    assert after.branch.startswith(f"{len(after.backs)}: ")
    assert after.turn > past.turn


@given(pasts(), st.integers(0, 9).map("{:02}".format))
def test_a_resumed_run_keeps_what_was_built_on_checkpoints_that_are_there(past: Past, head: str) -> None:
    resumed = past.resumed(head)
    assert resumed.done == tuple(one for one in past.done if one.checkpoint <= head)
    assert resumed.made == tuple(one for one in past.made if one.checkpoint <= head)
    assert {one.number for one in resumed.calls} == {one.number for one in past.calls}
    assert resumed.turn == past.turn + 1


def test_the_redone_node_is_the_blamed_one_in_its_first_superstep_again() -> None:
    back = Back("check", "plan", "02", 1)
    past = Past("run", (done("plan", 1),)).after(back)
    place = Place("plan", checkpoint="05", task="plan:x")
    assert past.redone(place) == back
    assert past.redone(replace(place, node="solve")) is None
    assert past.redone(replace(place, task="sub:x|plan:y")) is None, "another graph's node of this name"
    walked = past.walked(done("plan", 5))
    assert walked.redone(place) == back, "a fan-out: its other parts are redone too"
    assert walked.redone(replace(place, checkpoint="06")) is None, "a loop: that is another run of the node"
    assert Past("run").redone(place) is None


def test_a_step_that_a_crash_made_run_again_counts_once() -> None:
    past = Past("run").walked(done("plan", 1, "same")).walked(done("plan", 1, "same", rung=1))
    assert [one.rung for one in past.done] == [1]


def test_only_so_many_steps_are_remembered() -> None:
    past = Past("run")
    for at in range(MOST_STEPS + 10):
        past = past.walked(done("plan", at, str(at)))
    assert len(past.done) == MOST_STEPS
    assert past.done[-1].task == str(MOST_STEPS + 9)
