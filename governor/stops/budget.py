"""The exact budget of thought, and its opposite, the least amount (s1's budget forcing: arXiv 2501.19393)."""

from __future__ import annotations

from governor.stops.arrays import Array


def due(count: Array, made: Array, budget: Array, room: Array, length: Array) -> Array:
    """Whether the thought must end now, so that with the `length` tokens that end it it is within its budget.

    `count` tokens were thought of `budget`, `made` in all of `room`: `max_tokens` without the answer's reserve.
    """
    return (count + length >= budget) | (made + length >= room)


def early(count: Array, least: Array) -> Array:
    """Whether the thought may not end yet."""
    return count < least
