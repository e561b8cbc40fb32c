from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from governor_litellm.applications import ForeignApplicationError, Wishes, application, own_applications

NAMES = st.sampled_from(["alpha", "beta", "gamma", "default", "evil", ""])
ANY = st.one_of(NAMES, st.none(), st.integers(), st.lists(NAMES), st.dictionaries(NAMES, NAMES))


def wishes(**said: Any) -> Wishes:
    return Wishes(said.get("headers", {}), said.get("metadata", {}), said.get("tags", ()), said.get("model", ""))


def test_a_key_that_is_bound_gets_its_first_application() -> None:
    assert application(wishes(), ("alpha", "beta"), "default", "refuse") == "alpha"


@pytest.mark.parametrize(
    "said",
    [
        {"headers": {"x-governor-app": "beta"}},
        {"metadata": {"governor_app": "beta"}},
        {"tags": ["x", "app:beta"]},
        {"model": "governor/beta"},
    ],
)
def test_the_client_chooses_among_its_keys_own(said: dict[str, Any]) -> None:
    assert application(wishes(**said), ("alpha", "beta"), "default", "refuse") == "beta"
    with pytest.raises(ForeignApplicationError, match="beta"):
        application(wishes(**said), ("alpha",), "default", "refuse")
    assert application(wishes(**said), ("alpha",), "default", "default") == "alpha"
    assert application(wishes(**said), (), "default", "default") == "default"


def test_a_key_that_is_bound_to_none_has_the_default_alone() -> None:
    assert application(wishes(), (), "default", "refuse") == "default"
    assert application(wishes(headers={"x-governor-app": "default"}), (), "default", "refuse") == "default"
    with pytest.raises(ForeignApplicationError):
        application(wishes(headers={"x-governor-app": "alpha"}), (), "default", "refuse")


def test_a_key_chooses_only_among_its_teams() -> None:
    """Users may write their own keys' metadata, not their team's."""
    assert own_applications({"app": "gold"}, {"governor_apps": ["a", "b"]}) == ("a", "b")
    assert own_applications({"governor_apps": ["gold", "b"]}, {"governor_apps": ["a", "b"]}) == ("b",)
    assert own_applications({"governor_apps": ["b", "a"]}, {"governor_apps": ["a", "b", "c"]}) == ("b", "a")
    assert own_applications({"app": "a"}, {"other": 1}) == ("a",), "the team names none"
    assert own_applications({}, {"governor_apps": ["b", "b", 7, ""], "app": "c"}) == ("b", "c")
    assert own_applications(None, None) == ()


@given(
    headers=st.dictionaries(st.just("x-governor-app"), NAMES),
    metadata=st.dictionaries(st.just("governor_app"), ANY),
    tags=st.lists(st.one_of(ANY, NAMES.map(lambda name: f"app:{name}"))),
    model=st.one_of(NAMES, NAMES.map(lambda name: f"governor/{name}")),
    own=st.lists(st.sampled_from(["alpha", "beta"]), unique=True).map(tuple),
)
def test_whatever_a_client_says_it_never_gets_anothers(
    headers: dict[str, str], metadata: dict[str, Any], tags: list[Any], model: str, own: tuple[str, ...]
) -> None:
    asked = Wishes(headers, metadata, tags, model)
    allowed = own or ("default",)
    assert application(asked, own, "default", "default") in allowed
    try:
        assert application(asked, own, "default", "refuse") in allowed
    except ForeignApplicationError:
        assert asked.app() not in allowed
