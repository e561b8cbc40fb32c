"""examples/proxy: that its files fit together and to what Governor tells; no container is run for it."""

from __future__ import annotations

import json
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from ruamel.yaml import YAML
from typer.main import get_command

from governor.cli.app import app
from governor.policy import inspect_policy
from governor.telemetry.metrics import OtelMeter
from governor_litellm.desk import Desk
from governor_litellm.meter import observe
from governor_litellm.models import ProxyModels
from governor_litellm.settings import Settings
from governor_litellm.watch import HookWatch

HERE = Path(__file__).parents[2] / "examples" / "proxy"


def load(name: str) -> Any:
    return YAML(typ="safe", pure=True).load((HERE / name).read_text())


COMPOSE = load("compose.yaml")
SERVICES = COMPOSE["services"]


def test_two_proxies_are_started_by_a_command_that_there_is() -> None:
    proxy = SERVICES["proxy"]
    assert proxy["deploy"]["replicas"] == 2
    assert proxy["ports"] == ["127.0.0.1:4000-4001:4000"], "a port for each, on this machine alone"
    command: Any = get_command(app)
    own = command.commands["proxy"].make_context("proxy", list(proxy["command"]))
    assert (own.params["host"], own.params["port"]) == ("0.0.0.0", 4000)
    mounted = {one.split(":")[1] for one in proxy["volumes"]}
    assert {str(own.params["policies"]), str(own.params["config"])} == mounted


def test_what_is_mounted_is_there_and_secrets_must_be_given() -> None:
    for service in SERVICES.values():
        for volume in service.get("volumes", ()):
            source = volume.split(":")[0]
            assert (HERE / source).exists() if source.startswith(".") else source in COMPOSE["volumes"], volume
        image = service.get("image")
        assert image is None or re.fullmatch(r"[\w./-]+:v?\d[\w.-]+", image), "a version that does not move"
        for name, value in service.get("environment", {}).items():
            assert not re.search("KEY|PASSWORD", name) or ":?" in value, f"{name} has no default"


def test_the_policies_fit_the_models_that_the_proxy_serves() -> None:
    served = load("litellm.yaml")["model_list"]
    router = SimpleNamespace(model_list=served, pattern_router=SimpleNamespace(route=lambda _: None))
    for path in (HERE / "policies").glob("*.yaml"):
        found = inspect_policy(path, ProxyModels(lambda: router).checks())
        assert found.policy is not None, found.problems
        assert found.policy.ledger == "redis://redis:6379/0"
    assert {"--appendonly", "noeviction"} <= set(SERVICES["redis"]["command"]), "a ledger must not be forgotten"


def test_metrics_find_their_way_to_the_dashboard() -> None:
    collector, scraped = load("collector.yaml"), load("prometheus.yaml")["scrape_configs"][0]["static_configs"][0]
    for pipeline in collector["service"]["pipelines"].values():
        for kind in ("receivers", "processors", "exporters"):
            assert set(pipeline[kind]) <= set(collector[kind])
    port = collector["receivers"]["otlp"]["protocols"]["http"]["endpoint"].partition(":")[2]
    assert SERVICES["proxy"]["environment"]["OTEL_EXPORTER_OTLP_ENDPOINT"] == f"http://collector:{port}"
    assert scraped["targets"] == [f"collector:{collector['exporters']['prometheus']['endpoint'].partition(':')[2]}"]
    source = load("grafana/provisioning/datasources/prometheus.yaml")["datasources"][0]
    dashboard = json.loads((HERE / "grafana" / "dashboards" / "governor.json").read_text())
    assert source["url"] == "http://prometheus:9090"
    assert {panel["datasource"]["uid"] for panel in dashboard["panels"]} == {source["uid"]}


def test_the_dashboard_asks_only_for_what_is_told() -> None:
    text = (HERE / "grafana" / "dashboards" / "governor.json").read_text()
    asked = set(re.findall(r"governor_(?:budget|proxy)_\w+", text))
    assert len(asked) >= 8
    told = Told()
    OtelMeter("a", told)  # type: ignore[arg-type]  # a provider that only keeps names
    observe(Desk(Settings(), ProxyModels(lambda: None), HookWatch()), told)  # type: ignore[arg-type]
    assert asked <= told.names


class Told:
    """A meter provider and meter that keeps instruments' names as Prometheus has them: units in braces are dropped."""

    def __init__(self) -> None:
        self.names: set[str] = set()

    def get_meter(self, *_: Any, **__: Any) -> Told:
        return self

    def create_counter(self, name: str, unit: str, description: str) -> None:
        self._keep(name, unit, "_total")

    def create_observable_counter(self, name: str, callbacks: Any, unit: str, description: str) -> None:
        self._keep(name, unit, "_total")

    def create_observable_up_down_counter(self, name: str, callbacks: Any, unit: str, description: str) -> None:
        self._keep(name, unit)

    def create_observable_gauge(self, name: str, callbacks: Any, unit: str, description: str) -> None:
        self._keep(name, unit)

    def _keep(self, name: str, unit: str, ending: str = "") -> None:
        self.names.add(name.replace(".", "_") + ("_seconds" if unit == "s" else "") + ending)
