"""`governor proxy`: LiteLLM's proxy in this process, with Governor's hook in it."""

from __future__ import annotations

import os
import warnings
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from governor.checks import nameless_checks
from governor.errors import GovernorError, MissingExtraError, PolicyError, Problem
from governor.policy import inspect_policy
from governor_litellm.export import export_telemetry
from governor_litellm.policies import is_policy

CALLBACK = "governor_litellm.proxy.governor"
MASTER_KEY = "LITELLM_MASTER_KEY"


def serve(policies: Path, config: Path, host: str, port: int) -> None:
    """Serve until interrupted.

    Raises PolicyError for what the files hold, MissingExtraError without LiteLLM's proxy or the exporter that the
    environment asks for, GovernorError where there is no master key.
    """
    _check(policies, config)
    os.environ.setdefault("LITELLM_LOCAL_MODEL_COST_MAP", "True")
    os.environ |= {"CONFIG_FILE_PATH": str(config.resolve()), "GOVERNOR_POLICIES": str(policies.resolve())}
    export_telemetry()
    uvicorn, app = _proxy()
    app.router.lifespan_context = governed(app.router.lifespan_context)
    uvicorn.run(app, host=host, port=port, log_level="warning")


def governed(lifespan: Any) -> Any:
    """The app's own start and stop, with the hook put in where the configuration has not done so."""

    @asynccontextmanager
    async def with_hook(app: Any) -> AsyncGenerator[Any, None]:
        async with lifespan(app) as state:
            import litellm

            from governor_litellm import proxy

            hook = proxy.governor
            if hook not in litellm.callbacks:
                litellm.logging_callback_manager.add_litellm_callback(hook)
            await hook.desk.look()
            try:
                yield state
            finally:
                await hook.desk.close()

    return with_hook


def _check(policies: Path, config: Path) -> None:
    """Every mistake of every file at once, before seconds go by."""
    if not policies.is_dir():
        raise PolicyError([Problem("no such folder", str(policies), hint="it holds one *.yaml per application")])
    problems = [
        problem
        for path in sorted(filter(is_policy, policies.iterdir()))
        for problem in inspect_policy(path, nameless_checks()).problems
    ]
    if problems:
        raise PolicyError(problems)
    settings = _settings(config).get("general_settings")
    stated = settings.get("master_key") if isinstance(settings, Mapping) else None
    if isinstance(stated, str) and stated.startswith("os.environ/"):
        stated = os.environ.get(stated.removeprefix("os.environ/"))
    if not (stated or os.environ.get(MASTER_KEY)):
        raise GovernorError(
            f"the proxy has no master key, so that anyone could use it: set {MASTER_KEY} to a long random value "
            "that begins with sk-"
        )


def _settings(config: Path) -> Mapping[str, Any]:
    try:
        held = YAML(typ="safe", pure=True).load(config.read_text(encoding="utf-8"))
    except OSError as error:
        raise PolicyError([Problem(error.strerror or "can't be read", str(config))]) from None
    except YAMLError as error:
        raise PolicyError([Problem(f"not valid YAML: {str(error).splitlines()[0]}", str(config))]) from None
    return held if isinstance(held, Mapping) else {}


def _proxy() -> tuple[Any, Any]:
    """Uvicorn and the proxy's app. LiteLLM's own imports warn throughout; none of it is of use to an operator."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            import uvicorn
            from litellm.proxy.proxy_server import app
    except ImportError as absent:
        raise MissingExtraError("governor proxy", "proxy") from absent
    return uvicorn, app
