"""Which request is this? Ids that come in, stand in each log line of the request, and go out.

`traceparent` is W3C Trace Context. With the extra `otel` installed and OpenTelemetry's own
variables set (`OTEL_EXPORTER_OTLP_ENDPOINT`), each request also becomes a span, and each stage of
an image one below it.
"""

import os
import random
import re
import time
from collections.abc import Iterable, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any, Protocol

TRACEPARENT = re.compile(r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?")
REQUEST_ID = re.compile(r"[\x21-\x7e]{1,128}")
NO_TRACE, NO_SPAN = "0" * 32, "0" * 16
ENDPOINTS = "OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"


Stages = Iterable[tuple[str, float, float]]  # of an image: name, begin, end by `perf_counter`


@dataclass(frozen=True, slots=True)
class Trace:
    """One request's place in the world."""

    request_id: str
    trace_id: str
    span_id: str
    flags: str = "00"

    @property
    def traceparent(self) -> str:
        """Write it as a header, this server's span being the parent of what follows."""
        return f"00-{self.trace_id}-{self.span_id}-{self.flags}"

    def as_dict(self) -> dict[str, str]:
        """Name the ids as log lines do."""
        return {"request_id": self.request_id, "trace_id": self.trace_id, "span_id": self.span_id}


current: ContextVar[Trace | None] = ContextVar("trace", default=None)


def begin(headers: Mapping[str, str]) -> Trace:
    """Continue the caller's trace, or begin one; in it, this request is a span of its own."""
    given = headers.get("x-request-id", "")
    request_id = given if REQUEST_ID.fullmatch(given) else f"{random.getrandbits(64):016x}"
    span_id = f"{random.getrandbits(64) or 1:016x}"
    if parent := parse(headers.get("traceparent", "")):
        return Trace(request_id, parent[0], span_id, parent[1])
    return Trace(request_id, f"{random.getrandbits(128) or 1:032x}", span_id)


def parse(header: str) -> tuple[str, str] | None:
    """Read the trace's id and flags from a `traceparent`; None if it is not to be trusted."""
    if not (match := TRACEPARENT.fullmatch(header)):
        return None
    version, trace_id, span_id, flags, more = match.groups()
    if version == "ff" or (version == "00" and more) or trace_id == NO_TRACE or span_id == NO_SPAN:
        return None
    return trace_id, f"{int(flags, 16) & 1:02x}"  # the only flag that level 1 knows is "sampled"


class Spans(Protocol):
    """Where finished requests go."""

    def begin(self, name: str, headers: Mapping[str, str]) -> tuple[Trace, Any]:
        """Begin a span; returns its ids, and what `end` wants to have back."""

    def end(
        self,
        span: Any,
        name: str,
        attributes: Mapping[str, str | float],
        images: Sequence[Stages] = (),
    ) -> None:
        """End a span; `images` are the stages of those that were looked at in it."""

    def close(self) -> None:
        """Send what has not been sent."""


class NoSpans:
    """Ids only."""

    def begin(self, _name: str, headers: Mapping[str, str]) -> tuple[Trace, Any]:
        """Begin nothing but ids."""
        return begin(headers), None

    def end(
        self,
        span: Any,
        name: str,
        attributes: Mapping[str, str | float],
        images: Sequence[Stages] = (),
    ) -> None:
        """Forget it."""

    def close(self) -> None:
        """Have nothing to send."""


class OpenTelemetrySpans:
    """Spans through the OpenTelemetry SDK, as its own environment variables configure it."""

    def __init__(self, exporter: Any = None) -> None:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
        from opentelemetry.trace import SpanKind, set_span_in_context
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        name = os.environ.get("OTEL_SERVICE_NAME", "yoloserve")
        self._provider = TracerProvider(resource=Resource.create({"service.name": name}))
        self._provider.add_span_processor(BatchSpanProcessor(exporter or OTLPSpanExporter()))
        self._tracer = self._provider.get_tracer("yoloserve")
        self._kind = SpanKind.SERVER
        self._below = set_span_in_context
        self._extract = TraceContextTextMapPropagator().extract

    def begin(self, name: str, headers: Mapping[str, str]) -> tuple[Trace, Any]:
        """Begin a span below the caller's."""
        parent = {key: headers[key] for key in ("traceparent", "tracestate") if key in headers}
        # Wall time is read this once, and before the other clock: whatever stops the process in
        # between, and however wall time is set meanwhile, no stage lies outside of its span.
        started = time.time_ns()
        epoch = started - time.perf_counter_ns()
        span = self._tracer.start_span(
            name, context=self._extract(parent), kind=self._kind, start_time=started
        )
        of = span.get_span_context()
        trace_id, span_id = f"{of.trace_id:032x}", f"{of.span_id:016x}"
        trace = Trace(begin(headers).request_id, trace_id, span_id, f"{int(of.trace_flags):02x}")
        return trace, (span, epoch)

    def end(
        self,
        span: Any,
        name: str,
        attributes: Mapping[str, str | float],
        images: Sequence[Stages] = (),
    ) -> None:
        """End the span with what is known by then, and make those of the stages below it."""
        span, epoch = span
        span.update_name(name)
        span.set_attributes(attributes)
        if span.is_recording():
            for number, stages in enumerate(images):
                for stage, began, ended in stages:
                    child = self._tracer.start_span(
                        stage,
                        context=self._below(span),
                        attributes={"yoloserve.image": number},
                        start_time=epoch + int(began * 1e9),
                    )
                    child.end(epoch + int(ended * 1e9))
        span.end(epoch + time.perf_counter_ns())

    def close(self) -> None:
        """Send what has not been sent."""
        self._provider.shutdown()


def spans() -> Spans:
    """Choose: OpenTelemetry where it is installed and told where to send, else ids only."""
    wanted = any(os.environ.get(name) for name in ENDPOINTS)
    here = find_spec("opentelemetry") and find_spec("opentelemetry.sdk")
    return OpenTelemetrySpans() if wanted and here else NoSpans()
