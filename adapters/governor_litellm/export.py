"""Sends metrics and spans where OpenTelemetry's own variables say; without them nothing is sent."""

from __future__ import annotations

import os
from collections.abc import Mapping

from governor.errors import MissingExtraError

ENDPOINT = "OTEL_EXPORTER_OTLP_ENDPOINT"
SERVICE = "governor-proxy"


def export_telemetry(environ: Mapping[str, str] | None = None) -> tuple[str, ...]:
    """Set this process's global providers up for OTLP over HTTP; gives what is sent: "metrics", "traces", both or none.

    OTEL_EXPORTER_OTLP_ENDPOINT (or its form for one signal) says where to, OTEL_SERVICE_NAME under which name; more
    are OpenTelemetry's own. MissingExtraError without the exporter.
    Source: opentelemetry.io/docs/specs/otel/protocol/exporter.
    """
    known = os.environ if environ is None else environ
    signals = tuple(name for name in ("metrics", "traces") if _wanted(known, name))
    if not signals:
        return ()
    os.environ.setdefault("OTEL_SERVICE_NAME", SERVICE)
    try:
        if "metrics" in signals:
            _export_metrics()
        if "traces" in signals:
            _export_traces()
    except ImportError as absent:
        raise MissingExtraError(ENDPOINT, "otel") from absent
    return signals


def _wanted(environ: Mapping[str, str], signal: str) -> bool:
    where = environ.get(ENDPOINT) or environ.get(f"OTEL_EXPORTER_OTLP_{signal.upper()}_ENDPOINT")
    return bool(where) and environ.get(f"OTEL_{signal.upper()}_EXPORTER", "otlp") != "none"


def _export_metrics() -> None:
    from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
    from opentelemetry.metrics import set_meter_provider
    from opentelemetry.sdk.metrics import MeterProvider
    from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader

    set_meter_provider(MeterProvider([PeriodicExportingMetricReader(OTLPMetricExporter())]))


def _export_traces() -> None:
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor
    from opentelemetry.trace import set_tracer_provider

    provider = TracerProvider()
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    set_tracer_provider(provider)
