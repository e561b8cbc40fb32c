"""Metrics and spans leave the process where OpenTelemetry's own variables say, and only there."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from governor.errors import MissingExtraError
from governor_litellm.export import ENDPOINT, SERVICE, export_telemetry

EXPORTERS = "opentelemetry.exporter.otlp.proto.http"
TOLD = """
from governor_litellm.export import export_telemetry
from opentelemetry import metrics, trace
print(*export_telemetry())
metrics.get_meter("governor").create_counter("governor.told").add(7)
trace.get_tracer("governor").start_span("governor.step").end()
for provider in (metrics.get_meter_provider(), trace.get_tracer_provider()):
    if hasattr(provider, "shutdown"):
        provider.shutdown()
"""


class Collector:
    """Takes what is sent, by path."""

    def __init__(self) -> None:
        self.taken: dict[str, bytes] = {}
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), type("_Bound", (_Handler,), {"collector": self}))
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02})
        self._thread.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class _Handler(BaseHTTPRequestHandler):
    collector: Collector  # of the subclass that each collector makes

    def do_POST(self) -> None:
        held = self.rfile.read(int(self.headers["content-length"]))
        self.collector.taken[self.path] = self.collector.taken.get(self.path, b"") + held
        self.send_response(200)
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's name
        """Keep the test output clean."""


@pytest.fixture
def collector() -> Iterator[Collector]:
    made = Collector()
    yield made
    made.close()


@pytest.mark.parametrize(
    ("environ", "signals"),
    [
        ({ENDPOINT: "URL"}, {"metrics", "traces"}),
        ({"OTEL_EXPORTER_OTLP_METRICS_ENDPOINT": "URL/v1/metrics"}, {"metrics"}),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "URL/v1/traces"}, {"traces"}),
        ({ENDPOINT: "URL", "OTEL_TRACES_EXPORTER": "none"}, {"metrics"}),
        ({}, set()),
    ],
)
def test_what_is_told_arrives(collector: Collector, environ: Mapping[str, str], signals: set[str]) -> None:
    if signals:
        pytest.importorskip(f"{EXPORTERS}.trace_exporter", reason="the exporter is the extra 'otel'")
    kept = {name: value for name, value in os.environ.items() if not name.startswith("OTEL_")}
    stated = {name: value.replace("URL", collector.url) for name, value in environ.items()}
    path = {"PYTHONPATH": os.pathsep.join(sys.path), "OTEL_BSP_SCHEDULE_DELAY": "100"}
    told = subprocess.run(
        [sys.executable, "-c", TOLD], env={**kept, **path, **stated}, capture_output=True, text=True, timeout=60
    )
    assert (told.returncode, set(told.stdout.split())) == (0, signals), told.stderr
    assert set(collector.taken) == {f"/v1/{signal}" for signal in signals}
    names = {"metrics": b"governor.told", "traces": b"governor.step"}
    for signal in signals:
        assert names[signal] in collector.taken[f"/v1/{signal}"]
        assert SERVICE.encode() in collector.taken[f"/v1/{signal}"], "under the proxy's own name"


def test_without_an_address_nothing_is_set_up() -> None:
    assert export_telemetry({}) == ()
    assert export_telemetry({ENDPOINT: "x", "OTEL_METRICS_EXPORTER": "none", "OTEL_TRACES_EXPORTER": "none"}) == ()


@pytest.mark.parametrize("signal", ["metric", "trace"])
def test_a_missing_exporter_is_said(monkeypatch: pytest.MonkeyPatch, signal: str) -> None:
    monkeypatch.setenv("OTEL_SERVICE_NAME", "kept")
    monkeypatch.setitem(sys.modules, f"{EXPORTERS}.{signal}_exporter", None)
    with pytest.raises(MissingExtraError, match="otel"):
        export_telemetry({f"OTEL_EXPORTER_OTLP_{signal.upper()}S_ENDPOINT": "http://127.0.0.1:1"})
