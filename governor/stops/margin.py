"""Sentence-end margin: the end of thought is almost the likeliest next token (ThinkBrake, arXiv 2510.00546)."""

from __future__ import annotations

from governor.stops.arrays import Array


def margin_of(best: Array, ending: Array) -> Array:
    """How far the end of thought lies behind the likeliest token (rows,), in logits or natural logs alike.

    ThinkBrake's is `max over y != e of z(y) - z(e)`. Taking the maximum over all y instead differs only where e itself
    is likeliest: 0 in place of a negative figure, the same for every threshold from 0 up.
    """
    return best - ending


def sure(margin: Array, temperature: Array, threshold: Array, sentence: Array) -> Array:
    """Whether to end here: at a sentence's end, where `margin / T <= tau` (section 3; tau 0.1 for Qwen3 and R1).

    A temperature of 0 (greedy) counts as 1, which the caller sees to.
    """
    return (sentence > 0) & (margin <= threshold * temperature)
