"""Tasks for benchmarks/live.py: generated from a seed, three stated levels, seven families, 30 tasks a family.

The spread is fixed here, before any model answers: every family has equally many easy, medium and hard tasks.
Five families can be verified more cheaply than solved (residues, substitution, schema and grounding, order,
tests); two have no verifier at all, as in life. `gold` is for grading alone.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from typing import Any

from benchmarks.live_functions import FUNCTIONS
from governor.records import Reply, Step
from governor.tasks import Task

LEVELS = ("easy", "medium", "hard")
PER_LEVEL = 10
Made = tuple[str, Any, Any]
"""Prompt, verify spec (None: nothing applies), gold."""

_NAMES = (
    "Priya Nair",
    "Tomas Berg",
    "Aisha Khan",
    "Lena Vogt",
    "Marco Rossi",
    "Yuki Sato",
    "Omar Haddad",
    "Ines Costa",
)
_CITIES = ("Lisbon", "Oslo", "Krakow", "Izmir", "Osaka", "Quito", "Lyon", "Perth")
_THINGS = ("chairs", "lamps", "printers", "desks", "monitors", "cables")


def _arithmetic(draw: random.Random, level: int) -> Made:
    if level == 0:
        a, b = draw.randint(11, 89), draw.randint(11, 89)
        text, value = f"{a} + {b}", a + b
    elif level == 1:
        a, b = draw.randint(12, 49), draw.randint(12, 29)
        text, value = f"{a} * {b}", a * b
    else:
        a, b, c = draw.randint(23, 78), draw.randint(13, 48), draw.randint(105, 950)
        text, value = f"{a} * {b} - {c}", a * b - c
    return f"What is {text}?", {"arithmetic": text}, {"number": value}


def _equation(draw: random.Random, level: int) -> Made:
    x = draw.randint(2, 9) if level == 0 else draw.randint(3, 25)
    a, b = draw.randint(2, 9), draw.randint(3, 40)
    if level < 2:
        left, right = f"{a}*x + {b}", str(a * x + b)
    else:
        c = draw.choice([n for n in range(2, 8) if n != a])
        left, right = f"{a}*(x + {b})", f"{c}*x + {a * (x + b) - c * x}"
    shown = f"{left} = {right}".replace("*x", "x").replace("*(", "(")
    return f"Solve for x: {shown}", {"equation": f"{left} = {right}"}, {"number": x}


def _puzzle(draw: random.Random, level: int) -> Made:
    if level == 0:
        x, d = draw.randint(12, 40), draw.randint(2, 11)
        prompt = f"Two numbers add up to {2 * x - d} and differ by {d}. What is the larger one?"
        return prompt, {"equation": f"x + (x - {d}) = {2 * x - d}"}, {"number": x}
    if level == 1:
        x, rest = draw.randint(3, 12), draw.randint(3, 12)
        prompt = (
            f"A purse holds {x + rest} coins, some of 2 euros and some of 5 euros, worth {5 * x + 2 * rest} euros "
            "together. How many 5-euro coins are there?"
        )
        return prompt, {"equation": f"5*x + 2*({x + rest} - x) = {5 * x + 2 * rest}"}, {"number": x}
    age, years, times = draw.randint(6, 15), draw.randint(2, 9), draw.randint(2, 4)
    parent = times * (age + years) - years
    prompt = (
        f"A parent is {parent} years old. In {years} years the parent will be exactly {times} times as old as the "
        "child will be then. How old is the child now?"
    )
    return prompt, {"equation": f"{times}*(x + {years}) = {parent} + {years}"}, {"number": age}


def _extraction(draw: random.Random, level: int) -> Made:
    name, city, thing = draw.choice(_NAMES), draw.choice(_CITIES), draw.choice(_THINGS)
    count, day, price, order = draw.randint(2, 30), draw.randint(1, 28), draw.randint(9, 400), draw.randint(1000, 9999)
    kinds: dict[str, Any] = {"name": {"type": "string", "pattern": "^[A-Z][a-z]+ [A-Z][a-z]+$"}}
    gold: dict[str, Any] = {"name": name}
    text = f"{name} from {city} called about order {order}."
    if level == 0:
        kinds["city"], gold["city"] = {"type": "string"}, city
    else:
        text = f"On {day} May 2026 {name} from {city} ordered {count} {thing} at {price} EUR each (order {order})."
        kinds |= {"date": {"type": "string", "pattern": "^2026-05-[0-9]{2}$"}, "quantity": {"type": "integer"}}
        gold |= {"date": f"2026-05-{day:02}", "quantity": count}
    if level == 2:
        other = draw.choice([n for n in _NAMES if n != name])
        text += f" {other} had first asked for {count + 3} {thing} on 2 May, but that order was cancelled."
        kinds |= {"unit_price": {"type": "number"}, "order": {"type": "integer"}}
        gold |= {"unit_price": price, "order": order}
    schema = {"type": "object", "required": list(kinds), "properties": kinds, "additionalProperties": False}
    keys = ", ".join(f'"{key}" ({"YYYY-MM-DD" if key == "date" else kind["type"]})' for key, kind in kinds.items())
    what = "the order that stands" if level == 2 else "it"
    prompt = f'Text: "{text}" Give a JSON object about {what} with the keys {keys}.'
    return prompt, {"json_schema": schema}, {"json": gold}


def _order(draw: random.Random, level: int) -> Made:
    size, top = ((4, 99), (7, 99), (10, 999))[level]
    numbers = draw.sample(range(1, top + 1), size)
    shown = ", ".join(map(str, numbers))
    prompt = f"Sort these numbers from small to large, separated by commas: {shown}"
    return prompt, {"callable": "benchmarks.live_tasks:in_order"}, {"text": ", ".join(map(str, sorted(numbers)))}


def in_order(step: Step, reply: Reply) -> bool:
    """Whether the last line of numbers is sorted and holds just the prompt's numbers: checking without sorting."""
    wanted = _numbers(step.prompt.partition(":")[2])
    lines = [line for line in reply.text.splitlines() if len(_numbers(line)) >= len(wanted)]
    given = _numbers(lines[-1]) if lines else []
    return given == sorted(given) and set(given) == set(wanted) and len(given) == len(wanted)


def _numbers(text: str) -> list[int]:
    return [int(word) for word in text.replace(",", " ").replace(".", " ").split() if word.isdigit()]


def _clock(draw: random.Random, level: int) -> Made:
    start = draw.randint(6, 15) * 60 + draw.choice((0, 15, 30, 45) if level == 0 else range(1, 60))
    length = draw.choice((30, 45, 60, 90)) if level == 0 else draw.randint(65, 400)
    end = start + length
    when = f"leaves at {start // 60}:{start % 60:02} and arrives at {end // 60}:{end % 60:02}"
    prompt = f"A train {when}. How many minutes does the journey take?"
    if level == 2:
        stop = draw.randint(7, 40)
        prompt = f"A train {when}, with one stop of {stop} minutes. For how many minutes does it move?"
        length -= stop
    return prompt, None, {"number": length}


def _shopping(draw: random.Random, level: int) -> Made:
    a, b, p, q = draw.randint(2, 9), draw.randint(2, 9), draw.randint(2, 19), draw.randint(2, 19)
    if level == 0:
        return f"A pen costs {p} euros. How many euros do {a} pens cost?", None, {"number": a * p}
    bill = a * p + b * q
    prompt = f"A pen costs {p} euros and a book {q} euros. How many euros do {a} pens and {b} books cost together?"
    if level == 1:
        return prompt, None, {"number": bill}
    paid = (bill // 50 + 1) * 50
    prompt = (
        f"A pen costs {p} euros and a book {q} euros. Someone buys {a} pens and {b} books and pays with {paid} euros. "
        "How many euros of change are due?"
    )
    return prompt, None, {"number": paid - bill}


_FAMILIES: dict[str, Callable[[random.Random, int], Made]] = {
    "arithmetic": _arithmetic,
    "equation": _equation,
    "puzzle": _puzzle,
    "extraction": _extraction,
    "order": _order,
    "clock": _clock,
    "shopping": _shopping,
}


def tasks(seed: int) -> tuple[Task, ...]:
    """All tasks in a shuffled order that depends on the seed alone; ids are `family-level-number`."""
    made = [*_generated(seed), *_coded(seed)]
    random.Random(seed).shuffle(made)
    return tuple(made)


def _generated(seed: int) -> Iterator[Task]:
    for family, make in _FAMILIES.items():
        for level, name in enumerate(LEVELS):
            draw = random.Random(f"{seed}-{family}-{name}")
            for number in range(PER_LEVEL):
                yield _task(f"{family}-{name}-{number}", family, make(draw, level), seed)


def _coded(seed: int) -> Iterator[Task]:
    for name, (level, wanted, shown, held_back) in FUNCTIONS.items():
        prompt = f"Write a Python function {wanted} Reply with one ```python code block."
        yield _task(f"code-{level}-{name}", "code", (prompt, {"python_tests": shown}, {"tests": held_back}), seed)


def _task(task_id: str, family: str, made: Made, seed: int) -> Task:
    prompt, verify, gold = made
    checks = () if verify is None else (verify,)
    messages = ({"role": "user", "content": prompt},)
    return Task(Step(id=task_id, messages=messages, node=family, checks=checks, seed=seed), gold)
