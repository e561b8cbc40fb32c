"""How the proxy hook is set up, read from the environment once."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeVar, cast, get_args

from governor.errors import PolicyError, Problem
from governor_litellm.applications import Unknown

StreamMode = Literal["buffer", "speculate", "pass"]
W = TypeVar("W", bound=str)


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """`policies` is the folder of policies, None where there is none: then every request is left alone.

    `default` is the application of keys that are bound to none, `unknown` what a foreign one means. `stream` says what
    becomes of a stream that has a verifier where its policy doesn't say: held back until it is accepted, shown a
    sentence at a time as long as nothing is doubted, or shown at once and not verified.
    `records` is a folder for decision records (None: none are kept). `interval` is in seconds between two looks.
    """

    policies: Path | None = None
    default: str = "default"
    unknown: Unknown = "refuse"
    stream: StreamMode = "buffer"
    records: Path | None = None
    interval: float = 1.0

    @classmethod
    def read(cls, environ: Mapping[str, str]) -> Settings:
        """From GOVERNOR_POLICIES, _DEFAULT_APP, _UNKNOWN_APP, _STREAM, _RECORDS and _INTERVAL.

        Raises PolicyError for a wrong word.
        """
        policies, records = environ.get("GOVERNOR_POLICIES"), environ.get("GOVERNOR_RECORDS")
        if policies and not Path(policies).is_dir():
            problem = Problem(f"no folder '{policies}'", field="GOVERNOR_POLICIES", hint="it holds one *.yaml per app")
            raise PolicyError([problem])
        return cls(
            policies=Path(policies) if policies else None,
            default=environ.get("GOVERNOR_DEFAULT_APP", "default"),
            unknown=cast("Unknown", _word(environ, "GOVERNOR_UNKNOWN_APP", get_args(Unknown), "refuse")),
            stream=cast("StreamMode", _word(environ, "GOVERNOR_STREAM", get_args(StreamMode), "buffer")),
            records=Path(records) if records else None,
            interval=_seconds(environ, "GOVERNOR_INTERVAL", 1.0),
        )


def _word(environ: Mapping[str, str], name: str, words: tuple[W, ...], otherwise: W) -> str:
    word = environ.get(name, otherwise)
    if word not in words:
        raise PolicyError([Problem(f"'{word}' is none of {', '.join(words)}", field=name)])
    return word


def _seconds(environ: Mapping[str, str], name: str, otherwise: float) -> float:
    try:
        seconds = float(environ.get(name, otherwise))
    except ValueError:
        seconds = math.nan
    if not 0 < seconds < math.inf:
        raise PolicyError([Problem(f"'{environ[name]}' is no number of seconds", field=name, hint="such as 0.5")])
    return seconds
