"""Which application a request is of: bound to its key or team, chosen by the client only among those."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from governor.errors import GovernorError

HEADER = "x-governor-app"
METADATA = "governor_app"
TAG = "app:"
ALIAS = "governor/"

Unknown = Literal["default", "refuse"]
"""What an application that the key may not use means: the default policy, or a refusal."""


@dataclass(frozen=True, slots=True)
class Wishes:
    """What the client says about its request. Nothing of it is to be trusted."""

    headers: Mapping[str, str]
    metadata: Mapping[str, Any]
    tags: Sequence[Any] = ()
    model: str = ""

    def app(self) -> str | None:
        """The application that is asked for: by header, else metadata, else tag, else the model's name."""
        named = [self.headers.get(HEADER), self.metadata.get(METADATA), self._tagged(), self._alias()]
        return next((one.strip() for one in named if isinstance(one, str) and one.strip()), None)

    def _tagged(self) -> str | None:
        return next((tag.removeprefix(TAG) for tag in self.tags if isinstance(tag, str) and tag.startswith(TAG)), None)

    def _alias(self) -> str | None:
        return self.model.removeprefix(ALIAS) if self.model.startswith(ALIAS) else None


class ForeignApplicationError(GovernorError):
    """The client asked for an application that its key may not use."""

    def __init__(self, app: str) -> None:
        self.app = app
        super().__init__(f"this key may not use the application {app[:64]!r}")


def own_applications(key: Mapping[str, Any] | None, team: Mapping[str, Any] | None) -> tuple[str, ...]:
    """The applications that a key may use, the usual one first: its own among its team's, else its team's.

    `governor_apps` is a list of names, `app` a single one. LiteLLM lets users write the metadata of their own keys:
    a team that names applications is what is to be trusted.
    """
    own, teams = _named(key or {}), _named(team or {})
    return tuple(name for name in own if name in teams) or teams if teams else own


def application(wishes: Wishes, own: tuple[str, ...], default: str, unknown: Unknown) -> str:
    """The application of a request; ForeignApplicationError where it asks for another's and `unknown` is "refuse".

    A key that is bound to none has the default application, and no other.
    """
    usual = own[0] if own else default
    asked = wishes.app()
    if asked is None or asked in (own or (default,)):
        return asked or usual
    if unknown == "refuse":
        raise ForeignApplicationError(asked)
    return default if not own else usual


def _named(metadata: Mapping[str, Any]) -> tuple[str, ...]:
    listed = metadata.get("governor_apps")
    if isinstance(listed, str):
        listed = [listed]
    names = [*(listed if isinstance(listed, Sequence) else ()), metadata.get("app")]
    return tuple(dict.fromkeys(name for name in names if isinstance(name, str) and name))
