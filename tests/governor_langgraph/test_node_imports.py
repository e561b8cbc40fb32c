"""What `import governor_langgraph` costs: nothing, until a name is asked for."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import governor_langgraph

ROOT = Path(__file__).parents[2]


def test_every_name_is_there_in_order() -> None:
    assert list(governor_langgraph.__all__) == sorted(governor_langgraph.__all__)
    for name in governor_langgraph.__all__:
        assert getattr(governor_langgraph, name) is not None
    assert set(governor_langgraph.__all__) <= set(dir(governor_langgraph))


def test_no_module_bears_a_public_name() -> None:
    """Importing such a module would put it in the place of what the name stands for."""
    modules = {path.stem for path in Path(governor_langgraph.__file__).parent.glob("*.py")}
    assert not modules & set(governor_langgraph.__all__)


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'noed'"):
        _ = governor_langgraph.noed


def loaded(code: str) -> set[str]:
    """The packages that are imported after `code`."""
    shown = f"{code}; print(*sorted(name.partition('.')[0] for name in sys.modules))"
    path = f"import sys; sys.path[:0] = ['{ROOT}', '{ROOT / 'adapters'}']"
    done = subprocess.run(
        [sys.executable, "-c", f"{path}; {shown}"], capture_output=True, text=True, check=True, timeout=60
    )
    return set(done.stdout.split())


def test_the_package_alone_imports_nothing_heavy() -> None:
    heavy = {"langgraph", "langchain", "langchain_core", "governor_litellm", "pydantic", "numpy", "opentelemetry"}
    assert not heavy & loaded("import governor_langgraph")


def test_errors_are_had_without_langgraph() -> None:
    assert not {"langgraph", "langchain_core"} & loaded("from governor_langgraph import NoAnswerError")


def test_the_chat_model_needs_langchain_core_alone() -> None:
    assert not {"langchain", "langgraph"} & loaded("from governor_langgraph import GovernedChat")


def test_a_node_imports_no_agents() -> None:
    names = loaded("from governor_langgraph import node")
    assert "langgraph" in names
    assert not {"langchain", "langchain_openai", "litellm", "sklearn"} & names
