"""Going back to the step that is to blame, against redoing the one that failed: 216 multi-step tasks, local models.

    python -m benchmarks.rewind --out runs/rewind.jsonl           (about an hour on one core)
    python -m benchmarks.rewind --tasks 12 --out runs/short.jsonl
    python -m benchmarks.rewind --report --out runs/rewind.jsonl

A LangGraph graph: `plan` writes an arithmetic expression for a word problem, `solve` is shown the expression alone and
works it out, `check` plays the story through with the result and asks no model. So a wrong plan is seen at the check
alone, and so is a slip in the sums; which of them it was, nobody tells.

Spread, fixed beforehand (rewind_tasks.py): eight families, a third each easy (one operation), medium (two or three) and
hard (three or four, or the story told backwards). Arms, on the same tasks, of one policy (rewind.yaml):

    rewind        the check's failure goes back to the step that is blamed, which is redone one rung higher
    retry         the same, but `solve` is what is redone; the plan is kept
    always large  the 1.5B model everywhere, one pass
    always small  the 0.5B model everywhere, one pass

The claim: `rewind` gives more right answers per cost than `retry`, and at most 5 points less accuracy than `always
large` at lower cost. Beside them stands `start over`, computed from the rows of the two fixed arms: small, and all of
it again on large where the check fails.

Cost is what the ledger booked on the task's session, all attempts: tokens, those of the 1.5B model three times.
`called` counts the same at the backend. Intervals are paired percentile bootstraps over tasks (10,000 resamples, seed
0). Rows are kept in --out, so that an interrupted run goes on. A request that two arms make alike (greedy, so the seed
is nothing) is answered once and charged to both.
"""

from __future__ import annotations

import argparse
import json
import re
import time
from collections.abc import Mapping, Sequence
from contextlib import closing
from fractions import Fraction
from pathlib import Path
from typing import Any, TypedDict

from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, SystemMessage
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import END, START, StateGraph
from rich.progress import track

from benchmarks.kept_rows import by_arm, kept
from benchmarks.rewind_report import ARMS, report, table
from benchmarks.rewind_tasks import Problem, problems
from benchmarks.shared_replies import SharedReplies
from governor.backends import Backends
from governor.checks import policy_checks
from governor.errors import CheckFailedError
from governor.facade import Governor
from governor.ledger import open_ledger
from governor.policy import Policy, load_policy
from governor.protocols import Backend
from governor.records import Call, Reply
from governor.telemetry.lines import LineFile
from governor.verify.answer import number
from governor_langgraph.chat import GovernedChat
from governor_langgraph.graph import GovernedGraph, govern
from governor_langgraph.source import Source

SEED = 20261121
POLICY = Path(__file__).parent / "rewind.yaml"
PLAN = (
    SystemMessage("Answer each question with one arithmetic expression, not worked out."),
    HumanMessage("Ann has 7 bags of 6 apples and eats 4 apples. How many apples are left?"),
    AIMessage("7 * 6 - 4"),
    HumanMessage("A bus holds 52 people. How many people do 3 buses hold?"),
    AIMessage("3 * 52"),
    HumanMessage("A rope of 90 m loses 15 m and is cut into 5 equal parts. How long is each part?"),
    AIMessage("(90 - 15) / 5"),
)
SOLVE = (
    SystemMessage("Work each expression out, one operation a line."),
    HumanMessage("7 * 6 - 4"),
    AIMessage("7 * 6 = 42\n42 - 4 = 38\nAnswer: 38"),
    HumanMessage("(90 - 15) / 5"),
    AIMessage("90 - 15 = 75\n75 / 5 = 15\nAnswer: 15"),
)
_EXPRESSION = re.compile(r"[-(\d][-+*/().\d\s]*[)\d]")


class State(TypedDict, total=False):
    """What flows through the graph; `task` is the id by which the check knows its story."""

    task: str
    question: str
    plan: str
    answer: str


class Counted(SharedReplies):
    """Shared replies that count what is asked, as a bill would: `cost` runs until it is set to 0."""

    def __init__(self, backend: Backend, path: Path, prices: Mapping[str, float]) -> None:
        super().__init__(backend, path)
        self.prices, self.cost = prices, 0.0

    def call(self, call: Call) -> Reply:
        reply = super().call(call)
        self.cost += self.prices[call.rung.model] * reply.usage.total_tokens
        return reply


def main() -> None:
    """Run what is missing, then print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs/rewind.jsonl"), help="rows so far; resumed")
    parser.add_argument("--tasks", type=int, default=None, help="only the first N of the shuffled tasks")
    parser.add_argument("--seed", type=int, default=SEED, help="of the tasks; another seed makes new tasks")
    parser.add_argument("--policy", type=Path, default=POLICY)
    parser.add_argument("--report", action="store_true", help="run nothing, print the tables of --out")
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of tables")
    options = parser.parse_args()
    chosen = problems(options.seed)[: options.tasks]
    options.out.parent.mkdir(parents=True, exist_ok=True)
    if not options.report:
        _run(chosen, load_policy(options.policy, checks=policy_checks()), options.out)
    found = report([task.id for task in chosen], by_arm(options.out))
    print(json.dumps(found) if options.json else table(found))


def arms(policy: Policy) -> dict[str, Policy]:
    """The policy of each arm; the fixed arms have one rung and never go back."""
    rules = [rule.model_dump(exclude_unset=True) for rule in policy.steps]
    kept = [
        {**rule, "on_fail": {"backtrack": {**rule["on_fail"]["backtrack"], "to": "solve"}}}
        if "on_fail" in rule
        else rule
        for rule in rules
    ]
    once = [{key: value for key, value in rule.items() if key != "on_fail"} for rule in rules]
    small, large = policy.ladder[0], policy.ladder[-1]
    changed: tuple[dict[str, Any], ...] = (
        {},
        {"steps": kept},
        {"ladder": [large], "steps": once},
        {"ladder": [small], "steps": once},
    )
    written = policy.model_dump(exclude_unset=True)
    return {arm: Policy.model_validate({**written, **change}) for arm, change in zip(ARMS, changed, strict=True)}


def build(governor: Governor, tasks: Mapping[str, Problem]) -> GovernedGraph:
    """Plan -> solve -> check, governed; nodes as an application would write them."""
    chat = GovernedChat(governor=governor)

    def said(shown: Sequence[BaseMessage], asked: str) -> str:
        return str(chat.invoke([*shown, HumanMessage(asked)]).content)

    def plan(state: State) -> State:
        return {"plan": expression_of(said(PLAN, state.get("question", "")))}

    def solve(state: State) -> State:
        return {"answer": said(SOLVE, state.get("plan", ""))}

    def check(state: State) -> State:
        answer = number(state.get("answer", ""))
        if answer is None or answer.denominator != 1 or not tasks[state.get("task", "")].holds(int(answer)):
            raise CheckFailedError("the result does not fit the story")
        return {}

    graph = StateGraph(State)
    for node in (plan, solve, check):
        graph.add_node(node.__name__, node)
    graph.add_edge(START, "plan")
    graph.add_edge("plan", "solve")
    graph.add_edge("solve", "check")
    graph.add_edge("check", END)
    sources = {"plan": Source(lambda state: state["question"]), "solve": Source(lambda state: state["plan"])}
    return govern(graph.compile(checkpointer=InMemorySaver()), governor, sources=sources)


def expression_of(text: str) -> str:
    """The longest expression that a text holds, on one line; the text itself where it holds none."""
    plain = text.replace("\\times", "*").replace("×", "*").replace("÷", "/")  # noqa: RUF001 - what models write
    found = [one.strip() for line in plain.splitlines() for one in _EXPRESSION.findall(line)]
    return max(found, key=len, default=text.strip())


def _run(chosen: Sequence[Problem], policy: Policy, out: Path) -> None:
    done = {(row["arm"], row["id"]) for row in kept(out)}
    tasks, rows = {task.id: task for task in chosen}, LineFile(out)
    prices = {name: model.price.input for name, model in policy.models.items() if model.price}
    with closing(Counted(Backends({}), Path(f"{out}.replies"), prices)) as counted:
        governors = {
            arm: Governor(one, backend=counted, ledger=open_ledger("memory://")) for arm, one in arms(policy).items()
        }
        graphs = {arm: build(governor, tasks) for arm, governor in governors.items()}
        todo = [(arm, task) for task in chosen for arm in ARMS if (arm, task.id) not in done]
        for arm, task in track(todo, description="rewind"):
            rows.append(json.dumps(_row(arm, task, graphs[arm], counted)).encode())
    rows.close()


def _row(arm: str, task: Problem, graph: GovernedGraph, counted: Counted) -> dict[str, Any]:
    began, counted.cost = time.monotonic(), 0.0
    governor, plans = graph.governor, []
    right = True
    try:
        for update in graph.stream(
            {"task": task.id, "question": task.question},
            {"configurable": {"thread_id": task.id}},
            stream_mode="updates",
        ):
            plans += [update["plan"]["plan"]] if "plan" in update else []
    except CheckFailedError:
        right = False
    return {
        "arm": arm,
        "id": task.id,
        "right": right,
        "cost": governor.ledger.balance(f"session:{governor.policy.app}/{task.id}").spent.micros,
        "called": counted.cost,
        "backs": _backs(graph, task.id),
        "plans": plans,
        "plans_right": [fits(plan, task.gold) for plan in plans],
        "seconds": round(time.monotonic() - began, 3),
    }


def _backs(graph: GovernedGraph, thread: str) -> list[list[Any]]:
    """Which nodes were redone, and on which rung, in order: read off the branches of the graph's history."""
    history = graph.get_state_history({"configurable": {"thread_id": thread}})
    branches = {one.metadata["governor_branch"] for one in history if "governor_branch" in one.metadata}
    found = sorted(
        re.findall(r"^(\d+): (\w+) on rung (\d+)", "\n".join(branches), re.MULTILINE), key=lambda one: int(one[0])
    )
    return [[node, int(rung)] for _, node, rung in found]


def fits(plan: str, gold: int) -> bool:
    """Whether a plan's value is the right answer; only the report asks."""
    if not _EXPRESSION.fullmatch(plan) or "**" in plan:
        return False
    try:
        value = eval(re.sub(r"\d+(?:\.\d+)?", r"Fraction('\g<0>')", plan), {"__builtins__": {}, "Fraction": Fraction})
    except (SyntaxError, TypeError, ZeroDivisionError):
        return False
    return bool(value == gold)


if __name__ == "__main__":
    main()
