"""Tasks for benchmarks/rewind.py: word problems out of a seed, eight families, three stated levels, 216 in all.

The spread is fixed here, before any model answers: every family has nine easy tasks (one operation), nine medium ones
(two or three) and nine hard ones (three or four, or the story told backwards). `holds` plays the story through with a
number that is offered as its answer: that is the check, and no prompt shows anything of it.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TypeAlias

LEVELS = ("easy", "medium", "hard")
PER_LEVEL = 9
Told: TypeAlias = tuple[str, int, Callable[[int], bool]]
"""A story with its question, the right answer, and whether a number fits the story."""


@dataclass(frozen=True, slots=True)
class Problem:
    """One task; `id` is `family-level-number`. `gold` is for the report alone."""

    id: str
    question: str
    gold: int
    holds: Callable[[int], bool]


def problems(seed: int) -> tuple[Problem, ...]:
    """All tasks, in a shuffled order that depends on the seed alone."""
    made = list(_made(seed))
    random.Random(seed).shuffle(made)
    return tuple(made)


def _made(seed: int) -> Iterator[Problem]:
    for family, tell in _FAMILIES.items():
        for level, name in enumerate(LEVELS):
            draw = random.Random(f"{seed}-{family}-{name}")
            for number in range(PER_LEVEL):
                yield Problem(f"{family}-{name}-{number}", *tell(draw, level))


def _shopping(draw: random.Random, level: int) -> Told:
    a, b, p, q = draw.randint(3, 9), draw.randint(2, 9), draw.randint(3, 12), draw.randint(4, 20)
    if level == 0:
        return f"A pen costs {p} euros. How many euros do {a} pens cost?", a * p, lambda x: x / a == p
    bill = a * p + b * q
    told = f"A pen costs {p} euros and a book {q} euros. Someone buys {a} pens and {b} books"
    if level == 1:
        return f"{told}. How many euros is that together?", bill, lambda x: x - b * q == a * p
    paid = (bill // 50 + 1) * 50
    asked = f"{told} and pays with {paid} euros. How many euros of change are due?"
    return asked, paid - bill, lambda x: bill + x == paid


def _travel(draw: random.Random, level: int) -> Told:
    v, t, w, u = draw.randint(4, 9) * 10, draw.randint(2, 8), draw.randint(3, 12) * 5, draw.randint(2, 6)
    if level == 0:
        return f"A train runs {v} km an hour for {t} hours. How many km is that?", v * t, lambda x: x / t == v
    if level == 1:
        told = f"A van drives {v} km an hour for {t} hours, then {w} km an hour for {u} hours."
        return f"{told} How many km does it drive?", v * t + w * u, lambda x: x - w * u == v * t
    way = v * t + w * u
    told = f"A trip is {way} km long. A van drives {v} km an hour for {t} hours, and {w} km an hour for the rest."
    return f"{told} For how many hours does it drive {w} km an hour?", u, lambda x: v * t + w * x == way


def _boxes(draw: random.Random, level: int) -> Told:
    n, k, c = draw.randint(6, 9), draw.randint(6, 24), draw.randint(3, 9)
    if level == 0:
        return f"There are {n} boxes of {k} eggs each. How many eggs are there?", n * k, lambda x: x / n == k
    lost = draw.randint(3, 15)
    if level == 1:
        told = f"A shop gets {n} boxes of {k} eggs each, and {lost} eggs are broken."
        return f"{told} How many whole eggs does it have?", n * k - lost, lambda x: x + lost == n * k
    lost += (n * k - lost) % c
    told = (
        f"A shop gets {n} boxes of {k} eggs each. {lost} eggs are broken, the others go to {c} shelves in equal parts."
    )
    return f"{told} How many eggs go to each shelf?", (n * k - lost) // c, lambda x: x * c + lost == n * k


def _wages(draw: random.Random, level: int) -> Told:
    h, r, o, e = draw.choice((20, 30, 40)), draw.randint(11, 29), draw.randint(2, 9), draw.randint(3, 9)
    if level == 0:
        return f"Someone works {h} hours at {r} euros an hour. How many euros is that?", h * r, lambda x: x / r == h
    told = f"Someone works {h} hours at {r} euros an hour, and {o} hours more at {r + e} euros an hour."
    pay = h * r + o * (r + e)
    if level == 1:
        return f"{told} How many euros is that in all?", pay, lambda x: x - o * (r + e) == h * r
    told = f"Someone earns {r} euros an hour, and {e} euros an hour more for each hour after the first {h}."
    return f"{told} How many euros do {h + o} hours bring?", pay, lambda x: x == (h + o) * r + o * e


def _garden(draw: random.Random, level: int) -> Told:
    a, b, p = draw.randint(8, 30), draw.randint(6, 9), draw.randint(3, 9)
    if level == 0:
        asked = f"A garden is {a} m long and {b} m wide. How many square metres is it?"
        return asked, a * b, lambda x: x / a == b
    c, d = draw.randint(2, 5), draw.randint(2, 5)
    if level == 1:
        told = f"A garden of {a} m by {b} m holds a pond of {c} m by {d} m; the rest is lawn."
        return f"{told} How many square metres of lawn are there?", a * b - c * d, lambda x: x + c * d == a * b
    told = f"A garden of {a} m by {b} m is fenced all round, but for a gate of {c} m. A metre of fence costs {p} euros."
    fence = 2 * (a + b) - c
    return f"{told} How many euros does the fence cost?", fence * p, lambda x: x / p + c == 2 * (a + b)


def _saving(draw: random.Random, level: int) -> Told:
    s, w, k, cost = draw.randint(15, 90), draw.randint(4, 18), draw.randint(5, 14), draw.randint(8, 40)
    if level == 0:
        asked = f"Mia has {s} euros and is given {w * k} euros. How many euros has she now?"
        return asked, s + w * k, lambda x: x - s == w * k
    if level == 1:
        told = f"Mia has {s} euros, saves {w} euros a week for {k} weeks, then spends {cost} euros."
        return f"{told} How many euros has she left?", s + w * k - cost, lambda x: x + cost - w * k == s
    price = s + (w + 3) * k
    told = (
        f"Mia has {s} euros and wants a bike of {price} euros. Each week she saves {w + 5} euros and spends 2 of them."
    )
    return f"{told} After how many weeks can she buy it?", k, lambda x: s + x * (w + 3) == price


def _coins(draw: random.Random, level: int) -> Told:
    x, y = draw.randint(3, 14), draw.randint(3, 14)
    if level == 0:
        asked = f"A purse holds {x + y} coins of 5 euros. How many euros is that?"
        return asked, 5 * (x + y), lambda n: n / 5 == x + y
    worth = 5 * x + 2 * y
    if level == 1:
        told = f"A purse holds {x} coins of 5 euros and {y} coins of 2 euros."
        return f"{told} How many euros is that?", worth, lambda n: n - 5 * x == 2 * y
    told = f"A purse holds {x + y} coins, some of 2 euros and some of 5 euros, worth {worth} euros together."
    return f"{told} How many coins of 5 euros are there?", x, lambda n: 5 * n + 2 * (x + y - n) == worth


def _ages(draw: random.Random, level: int) -> Told:
    age, years, times = draw.randint(6, 17), draw.randint(3, 12), draw.randint(2, 4)
    if level == 0:
        asked = f"Tom is {age} years old. How old will he be in {years} years?"
        return asked, age + years, lambda x: x - years == age
    if level == 1:
        told = f"Tom is {age} years old. In {years} years his aunt will be {times} times as old as he will be then."
        aunt = times * (age + years)
        return f"{told} How old will she be then?", aunt, lambda x: x / times - years == age
    aunt = times * (age + years) - years
    told = f"Tom's aunt is {aunt} years old. In {years} years she will be {times} times as old as Tom will be then."
    return f"{told} How old is Tom now?", age, lambda x: times * (x + years) == aunt + years


_FAMILIES: dict[str, Callable[[random.Random, int], Told]] = {
    "shopping": _shopping,
    "travel": _travel,
    "boxes": _boxes,
    "wages": _wages,
    "garden": _garden,
    "saving": _saving,
    "coins": _coins,
    "ages": _ages,
}
