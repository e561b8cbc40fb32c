"""What OpenTelemetry is told of the proxy itself."""

from __future__ import annotations

import asyncio
import gc
from pathlib import Path

from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader, NumberDataPoint

from governor_litellm.desk import Desk
from governor_litellm.meter import observe
from governor_litellm.models import ProxyModels
from governor_litellm.settings import Settings
from governor_litellm.watch import HookWatch

GOOD = "version: 1\napp: a\nledger: memory://\nladder: [{id: a, model: m}]\n"


def read(reader: InMemoryMetricReader) -> dict[tuple[str, str], int | float]:
    """Values by metric and by its only attribute's value."""
    data = reader.get_metrics_data()
    if data is None:
        return {}
    metrics = [metric for one in data.resource_metrics for scope in one.scope_metrics for metric in scope.metrics]
    return {
        (metric.name.removeprefix("governor.proxy."), _only(point)): point.value
        for metric in metrics
        for point in metric.data.data_points
        if isinstance(point, NumberDataPoint)
    }


def _only(point: NumberDataPoint) -> str:
    return str(next(iter((point.attributes or {}).values()), ""))


def test_bad_files_loads_and_missed_hooks_are_counted(tmp_path: Path) -> None:
    reader = InMemoryMetricReader()
    desk = Desk(Settings(policies=tmp_path), ProxyModels(lambda: None), HookWatch())
    observe(desk, MeterProvider([reader]))
    assert desk.folder is not None
    (tmp_path / "a.yaml").write_text(GOOD)
    desk.folder.look()
    (tmp_path / "b.yaml").write_text("version: 1\napp: b\nladder: nothing\n")
    for _ in range(3):
        desk.folder.look()
    desk.watch.silent("async_pre_call_hook", "why")
    assert read(reader) == {
        ("policies", ""): 1,
        ("policy_errors", ""): 1,
        ("policy_loads", "ok"): 1,
        ("policy_loads", "failed"): 1,
        ("flights", ""): 0,
        ("owed", ""): 0,
        ("missed_hooks", "async_pre_call_hook"): 1,
    }
    (tmp_path / "b.yaml").unlink()
    for _ in range(2):
        desk.folder.look()
    assert read(reader)["policy_errors", ""] == 0
    asyncio.run(desk.close())
    del desk
    gc.collect()
    assert read(reader) == {}, "a desk that is gone is read no more"
