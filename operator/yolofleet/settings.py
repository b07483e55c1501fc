"""The operator's settings, read once from the environment; nobody else reads it."""

from __future__ import annotations

import os
import platform
import re
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from yolofleet.api.analysis import Mode
from yolofleet.api.hosts import normal, wrong_with
from yolofleet.plan.defaults import Defaults, GpuSeries, OperatorPods
from yolofleet.plan.powers import Power
from yolofleet.routers.exposure import Allowed

_LABEL: Final = re.compile(r"[A-Za-z0-9][-A-Za-z0-9_./]*=([A-Za-z0-9][-A-Za-z0-9_.]*)?")
_GATEWAYS: Final = re.compile(r"mesh|[a-z0-9][-a-z0-9]*/([*]|[a-z0-9][-a-z0-9.]*)")
_ADDRESS: Final = re.compile(r"https?://[^\s/?#@]+(/[^\s?#]*)?")
_NAMESPACE: Final = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
_SERIES: Final = re.compile(r"[a-zA-Z_:][a-zA-Z0-9_:]*")
_ACCOUNT_NAMESPACE: Final = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")


class InvalidSettings(Exception):
    """A variable has a value that cannot be used; the message names it."""


@dataclass(frozen=True, slots=True)
class Settings:
    """What one run of the operator is told."""

    defaults: Defaults
    """Values that detectors may leave open, such as the serving images."""

    namespaces: tuple[str, ...]
    """Where detectors are served; empty: everywhere."""

    lease_namespace: str
    """Where the Lease is; the operator's own namespace."""

    lease_name: str
    """Operators that share a Lease are replicas: one leads, the others wait with warm caches."""

    identity: str
    """Who holds the Lease; new with every process, so that a restart is not taken for its past."""

    metrics_port: int
    """For /metrics, /healthz and /readyz; 0: any free port (tests)."""

    debug_port: int
    """For /debug, on loopback only: what is believed of a detector is for its admins; 0: none."""

    fleet_port: int
    """For the page of the fleet, on loopback only; 0: none."""

    webhook_port: int
    """For the validating webhook; 0: none."""

    webhook_certificates: Path
    """A folder with tls.crt and tls.key, as a Secret is mounted; read again when they change."""

    prometheus_url: str
    """Where releases may have their counters from; empty: nowhere. Users choose whether, not where:
    nobody makes the operator call an address."""

    prometheus_token_file: str
    """Its content is shown to Prometheus; empty: nothing is."""

    prometheus_ca_file: str
    """Who may vouch for Prometheus; empty: whom the system trusts."""

    workers: int
    """Detectors reconciled at once. The API server, not this process, is the limit (~200
    writes/s), and ten workers reach it."""

    resync_s: int
    """How often all kinds are listed anew, should a watch have lost something all the same."""

    watch_silence_s: int
    """When nothing came through a watch for so long, not even a bookmark, its kind is listed."""

    log_level: str
    """DEBUG also tells of every request; INFO tells of every change; WARNING of what needs you."""


def read_settings(environment: Mapping[str, str]) -> Settings:
    """Read YOLOFLEET_* from `environment`. Raises `InvalidSettings`."""
    text = _Variables(environment)
    namespace, labels = (
        text.optional("LEASE_NAMESPACE", _own_namespace()),
        text.labels("POD_LABELS"),
    )
    usual = GpuSeries()
    defaults = Defaults(
        image_cpu=text.required("IMAGE_CPU"),
        image_torch=text.optional("IMAGE_TORCH"),
        image_gpu=text.optional("IMAGE_GPU"),
        image_ray=text.optional("IMAGE_RAY"),
        image_pull_policy=text.one_of("IMAGE_PULL_POLICY", "IfNotPresent", "Always", "Never"),
        drain_seconds=text.whole_number("DRAIN_SECONDS", 30),
        monitor_labels=text.labels("MONITOR_LABELS") if text.yes("MONITORS") else None,
        namespaces=tuple(text.listed("NAMESPACES")),
        allowed=Allowed(text.hosts("ALLOWED_HOSTS"), text.gateways("ALLOWED_GATEWAYS")),
        forbidden=text.powers("FORBIDDEN"),
        operator=OperatorPods(namespace, labels) if labels else None,
        prometheus=text.address("PROMETHEUS_URL"),
        keda_authentication=text.optional("KEDA_AUTHENTICATION"),
        gpu=GpuSeries(
            text.series("GPU_ACTIVE", usual.active),
            text.series("GPU_UTILIZATION", usual.utilization),
            text.namespace("GPU_EXPORTER", usual.exporter),
        ),
        nodes_follow_pods=text.one_of("NODES_FOLLOW_PODS", "false", "true") == "true",
        analysis=Mode(text.one_of("ANALYSIS", Mode.DISABLED, Mode.DRY_RUN, Mode.ENFORCE)),
    )
    return Settings(
        defaults=defaults,
        namespaces=tuple(text.listed("NAMESPACES")),
        lease_namespace=namespace,
        lease_name=text.optional("LEASE_NAME", "yolofleet"),
        identity=f"{platform.node()}_{uuid.uuid4().hex[:8]}",
        metrics_port=text.whole_number("METRICS_PORT", 8080),
        debug_port=text.whole_number("DEBUG_PORT", 8082),
        fleet_port=text.whole_number("FLEET_PORT", 0),
        webhook_port=text.whole_number("WEBHOOK_PORT", 0),
        webhook_certificates=Path(text.optional("WEBHOOK_CERTIFICATES", "/certificates")),
        prometheus_url=text.address("PROMETHEUS_URL"),
        prometheus_token_file=text.optional("PROMETHEUS_TOKEN_FILE"),
        prometheus_ca_file=text.optional("PROMETHEUS_CA_FILE"),
        workers=text.whole_number("WORKERS", 10, least=1),
        resync_s=text.whole_number("RESYNC_SECONDS", 600, least=1),
        watch_silence_s=text.whole_number("WATCH_SILENCE_SECONDS", 150, least=1),
        log_level=text.one_of("LOG_LEVEL", "INFO", "DEBUG", "WARNING", "ERROR"),
    )


def from_environment() -> Settings:
    """Read the settings of this process. Raises `InvalidSettings`."""
    return read_settings(os.environ)


@dataclass(frozen=True, slots=True)
class _Variables:
    environment: Mapping[str, str]

    def optional(self, name: str, default: str = "") -> str:
        return self.environment.get(f"YOLOFLEET_{name}", "").strip() or default

    def required(self, name: str) -> str:
        if not (value := self.optional(name)):
            raise InvalidSettings(f"YOLOFLEET_{name} is not set")
        return value

    def one_of(self, name: str, default: str, *others: str) -> str:
        value = self.optional(name, default)
        if value not in (default, *others):
            known = ", ".join((default, *others))
            raise InvalidSettings(f"YOLOFLEET_{name} is {value!r}; it must be one of {known}")
        return value

    def yes(self, name: str) -> bool:
        return self.one_of(name, "true", "false") == "true"

    def labels(self, name: str) -> dict[str, str]:
        pairs = self.listed(name)
        if wrong := [pair for pair in pairs if not _LABEL.fullmatch(pair)]:
            raise InvalidSettings(
                f"YOLOFLEET_{name} has {wrong[0]!r}; it must be labels as in NAME=VALUE,NAME=VALUE"
            )
        return dict(pair.split("=", 1) for pair in pairs)

    def address(self, name: str) -> str:
        if (value := self.optional(name)) and not _ADDRESS.fullmatch(value):
            raise InvalidSettings(
                f"YOLOFLEET_{name} is {value!r}; it must be where its API is, as in"
                " http://prometheus.monitoring.svc:9090 or https://mimir.example.com/prometheus"
            )
        return value

    def series(self, name: str, default: str) -> str:
        if not _SERIES.fullmatch(value := self.optional(name, default)):
            raise InvalidSettings(
                f"YOLOFLEET_{name} is {value!r}; it must be the name of a series, as in {default}"
            )
        return value

    def namespace(self, name: str, default: str) -> str:
        """Return it, or nothing where it is set to that."""
        value = self.environment.get(f"YOLOFLEET_{name}", default).strip()
        if value and not _NAMESPACE.fullmatch(value):
            raise InvalidSettings(f"YOLOFLEET_{name} is {value!r}; it must be a namespace")
        return value

    def hosts(self, name: str) -> tuple[str, ...]:
        hosts = tuple(normal(host) for host in self.listed(name))
        if wrong := [host for host in hosts if wrong_with(host, ("a/gateway",))]:
            raise InvalidSettings(
                f"YOLOFLEET_{name} has {wrong[0]!r}; it must be DNS names, as in"
                " gate.example.com,*.cams.example.com, none of the cluster's own"
            )
        return hosts

    def gateways(self, name: str) -> tuple[str, ...]:
        gateways = tuple(self.listed(name))
        if wrong := [gateway for gateway in gateways if not _GATEWAYS.fullmatch(gateway)]:
            raise InvalidSettings(
                f"YOLOFLEET_{name} has {wrong[0]!r}; it must be gateways, as in NAMESPACE/NAME,"
                "NAMESPACE/*,mesh"
            )
        return gateways

    def powers(self, name: str) -> frozenset[Power]:
        given = self.listed(name)
        if wrong := [power for power in given if power not in set(Power)]:
            raise InvalidSettings(
                f"YOLOFLEET_{name} has {wrong[0]!r}; it must be of {', '.join(Power)}"
            )
        return frozenset(Power(power) for power in given)

    def listed(self, name: str) -> list[str]:
        return [each.strip() for each in self.optional(name).split(",") if each.strip()]

    def whole_number(self, name: str, default: int, least: int = 0) -> int:
        value = self.optional(name, str(default))
        if not value.isdecimal() or int(value) < least:
            raise InvalidSettings(
                f"YOLOFLEET_{name} is {value!r}; it must be a whole number from {least}"
            )
        return int(value)


def _own_namespace() -> str:
    try:
        return _ACCOUNT_NAMESPACE.read_text().strip() or "default"
    except OSError:
        return "default"
