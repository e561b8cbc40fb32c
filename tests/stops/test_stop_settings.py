"""The settings of one request: what they refuse, and how they travel."""

from __future__ import annotations

from typing import Any

import pytest

from governor.stops.settings import Stops

QUADRANT: dict[str, Any] = {"low_confidence": 0.6, "high_confidence": 0.9, "low_variance": 0.001, "high_variance": 0.01}


@pytest.mark.parametrize(
    "stops",
    [
        Stops(budget=0),
        Stops(budget=400, least=20, reserve=100, phrase="So:", again="Wait"),
        Stops(margin=0.1, wide_margin=1.0, few=50, **QUADRANT),
        Stops(group=17.5, group_window=128, group_top=5, repeat=3, repeat_period=8, repeat_tokens=12, step_window=4),
    ],
)
def test_what_is_sent_is_what_is_read(stops: Stops) -> None:
    assert Stops.read({**stops.args(), "other": 1}) == stops


def test_a_request_without_our_keys_is_not_ours() -> None:
    assert Stops.read(None) is None
    assert Stops.read({"kv_transfer_params": {}}) is None
    assert not Stops().acts


@pytest.mark.parametrize(
    ("args", "told"),
    [
        ({"governor_budgte": 1}, "governor_budgte: unknown; known are governor_budget,"),
        ({"governor_budget": "many"}, "governor_budget: 'many' is not a whole number"),
        ({"governor_budget": True}, "governor_budget: True is not a whole number"),
        ({"governor_budget": -1}, "governor_budget: -1 is not within 0 and 1e+07"),
        ({"governor_margin": float("nan")}, "governor_margin: nan is not a number"),
        ({"governor_margin": 10**400}, f"governor_margin: 1{59 * '0'}... is not within 0 and 1000"),
        ({"governor_margin": float("-inf")}, "governor_margin: -inf is not a number"),
        ({"governor_budget": 10**400}, f"governor_budget: 1{59 * '0'}... is not within 0 and 1e+07"),
        ({"governor_budget": "a" * 90}, f"governor_budget: '{59 * 'a'}... is not a whole number"),
        ({"governor_phrase": ""}, "governor_phrase: must have 1 to 400 characters"),
        ({"governor_phrase": "so \ud83d"}, "governor_phrase: holds half a letter"),
        ({"governor_again": "\udc00"}, "governor_again: holds half a letter"),
        ({"governor_\ud83d\n": 1}, "governor_\\ud83d\\n: unknown"),
        ({"governor_budget": 5, "governor_least": 6}, "governor_least: 6 is more than the budget of 5"),
        ({"governor_wide_margin": 1.0}, "governor_wide_margin: must come with a margin that is no wider"),
        ({"governor_low_confidence": 0.5}, "governor_high_confidence: the step rule needs all four edges"),
        (
            {f"governor_{key}": 0.5 for key in QUADRANT} | {"governor_low_variance": 0.6},
            "governor_low_variance: 0.6 is more",
        ),
    ],
)
def test_a_mistake_is_told_in_one_line(args: dict[str, Any], told: str) -> None:
    with pytest.raises(ValueError) as caught:
        Stops.read(args)
    assert str(caught.value).startswith(told)
    assert "\n" not in str(caught.value)
    assert str(caught.value).encode(), "is sent"
