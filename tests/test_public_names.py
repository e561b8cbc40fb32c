"""What `import governor` offers, and what it must not cost."""

from __future__ import annotations

import subprocess
import sys

import pytest

import governor

HEAVY = (
    "numpy",
    "pydantic",
    "ruamel",
    "opentelemetry",
    "tenacity",
    "typer",
    "rich",
    "jsonschema",
    "langgraph",
    "litellm",
)


def test_all_is_sorted_and_every_name_is_there() -> None:
    assert list(governor.__all__) == sorted(governor.__all__)
    for name in governor.__all__:
        assert getattr(governor, name) is not None


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'Govenor'"):
        _ = governor.Govenor


def test_import_governor_pulls_in_nothing_heavy() -> None:
    code = "import sys, governor; print(*sorted(name.partition('.')[0] for name in sys.modules))"
    loaded = _python(code).split()
    assert not set(HEAVY) & set(loaded)


def test_import_governor_stays_small() -> None:
    # Not ru_maxrss: that begins with the size of whoever started the process.
    code = "import governor; print(*(l.split()[1] for l in open('/proc/self/status') if l.startswith('VmRSS')))"
    kilobytes = int(_python(code))
    assert kilobytes < 60 * 1024


def test_records_and_errors_stay_light_too() -> None:
    code = "import sys, governor.records, governor.errors, governor.protocols; print(*sys.modules)"
    assert not set(HEAVY) & {name.partition(".")[0] for name in _python(code).split()}


def _python(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    return done.stdout
