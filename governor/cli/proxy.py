"""`governor proxy`: a LiteLLM proxy whose requests are governed."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Annotated

import typer


def proxy(
    policies: Annotated[Path, typer.Option("--policies", help="Folder of policies, one *.yaml per application.")],
    config: Annotated[Path, typer.Option("--config", help="LiteLLM's own configuration.")],
    host: Annotated[str, typer.Option("--host", help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option("--port", min=1, max=65535, help="Port to listen on.")] = 4000,
) -> None:
    """Start a LiteLLM proxy whose requests are governed.

    Clients need no change. LITELLM_MASTER_KEY must be set. Exit codes: 1 it can't start, 2 a file is wrong.

    Example: governor proxy --policies policies/ --config litellm.yaml
    """
    import_module("governor_litellm.serve").serve(policies, config, host, port)
