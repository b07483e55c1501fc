"""The environment, parsed or refused."""

import asyncio
import json
import logging

import pytest

from yolofleet.plan.defaults import GpuSeries, OperatorPods
from yolofleet.routers.exposure import Allowed
from yolofleet.runtime.logs import JsonFormatter, about, note
from yolofleet.settings import InvalidSettings, read_settings

ENOUGH = {"YOLOFLEET_IMAGE_CPU": "serve:cpu"}


def test_defaults_serve_the_whole_cluster() -> None:
    settings = read_settings(ENOUGH)
    assert settings.namespaces == ()
    assert settings.workers == 10
    assert settings.metrics_port == 8080
    assert settings.defaults.image_cpu == "serve:cpu"
    assert settings.defaults.image_pull_policy == "IfNotPresent"
    assert settings.defaults.drain_seconds == 30


def test_each_process_is_somebody_else() -> None:
    assert read_settings(ENOUGH).identity != read_settings(ENOUGH).identity


def test_namespaces_are_a_list() -> None:
    settings = read_settings(ENOUGH | {"YOLOFLEET_NAMESPACES": "a, b,,"})
    assert settings.namespaces == ("a", "b")


def test_who_we_are_is_told_by_the_labels_of_our_own_pods() -> None:
    labels = {"YOLOFLEET_POD_LABELS": "app=fleet,part=operator", "YOLOFLEET_LEASE_NAMESPACE": "ops"}
    operator = read_settings(ENOUGH | labels).defaults.operator
    assert operator == OperatorPods("ops", {"app": "fleet", "part": "operator"})
    assert read_settings(ENOUGH).defaults.operator is None


def test_powers_that_templates_may_not_take_are_a_list() -> None:
    given = ENOUGH | {"YOLOFLEET_FORBIDDEN": "hostPath, secrets"}
    assert read_settings(given).defaults.forbidden == {"hostPath", "secrets"}
    assert read_settings(ENOUGH).defaults.forbidden == frozenset()


def test_prometheus_is_where_its_api_is() -> None:
    assert read_settings(ENOUGH).prometheus_url == ""
    url = {"YOLOFLEET_PROMETHEUS_URL": "https://mimir.example.com:8443/prometheus"}
    assert read_settings(ENOUGH | url).prometheus_url == url["YOLOFLEET_PROMETHEUS_URL"]
    for wrong in ("prometheus:9090", "http://", "http://user:key@prometheus", "http://p/?a=b"):
        with pytest.raises(InvalidSettings, match="YOLOFLEET_PROMETHEUS_URL"):
            read_settings(ENOUGH | {"YOLOFLEET_PROMETHEUS_URL": wrong})


def test_labels_of_monitors_are_pairs_and_none_means_none_are_made() -> None:
    labels = {"YOLOFLEET_MONITOR_LABELS": "release=prom, a.b/team=,"}
    assert read_settings(ENOUGH | labels).defaults.monitor_labels == {
        "release": "prom",
        "a.b/team": "",
    }
    assert read_settings(ENOUGH).defaults.monitor_labels == {}
    off = read_settings(ENOUGH | labels | {"YOLOFLEET_MONITORS": "false"})
    assert off.defaults.monitor_labels is None


def test_what_detectors_may_route_is_a_list_and_nothing_means_everything() -> None:
    told = {
        "YOLOFLEET_ALLOWED_HOSTS": "*.Cams.example.com, gate.example.com,*",
        "YOLOFLEET_ALLOWED_GATEWAYS": "istio-system/public,edge/*,mesh",
    }
    allowed = read_settings(ENOUGH | told).defaults.allowed
    assert allowed.hosts == ("*.cams.example.com", "gate.example.com", "*")
    assert allowed.gateways == ("istio-system/public", "edge/*", "mesh")
    assert read_settings(ENOUGH).defaults.allowed == Allowed()


@pytest.mark.parametrize(
    ("name", "value", "told"),
    [
        ("IMAGE_CPU", "", "is not set"),
        ("WORKERS", "0", "from 1"),
        ("METRICS_PORT", "-1", "from 0"),
        ("DRAIN_SECONDS", "soon", "'soon'"),
        ("IMAGE_PULL_POLICY", "Sometimes", "one of IfNotPresent, Always, Never"),
        ("LOG_LEVEL", "info", "one of INFO"),
        ("FORBIDDEN", "secrets,hostpath", "'hostpath'"),
        ("ANALYSIS", "Off", "one of Disabled, DryRun, Enforce"),
        ("MONITORS", "yes", "one of true, false"),
        ("MONITOR_LABELS", "release", "NAME=VALUE"),
        ("MONITOR_LABELS", "a=b,release=x y", "'release=x y'"),
        ("ALLOWED_HOSTS", "a.example.com, http://b", "'http://b'; it must be DNS names"),
        ("ALLOWED_HOSTS", "pay.shop.svc", "'pay.shop.svc'"),
        ("ALLOWED_GATEWAYS", "public", "'public'; it must be gateways, as in NAMESPACE/NAME"),
    ],
)
def test_a_wrong_value_is_named(name: str, value: str, told: str) -> None:
    with pytest.raises(InvalidSettings) as raised:
        read_settings(ENOUGH | {f"YOLOFLEET_{name}": value})
    assert f"YOLOFLEET_{name}" in str(raised.value)
    assert told in str(raised.value)


def test_a_log_line_is_json_with_its_fields() -> None:
    record = logging.LogRecord("x", logging.INFO, "", 0, "created %s", ("it",), None)
    record.__dict__["fields"] = {"detector": "shop/gate"}
    line = json.loads(JsonFormatter().format(record))
    assert (line["level"], line["message"]) == ("info", "created it")
    assert line["detector"] == "shop/gate"


def a_line() -> dict[str, object]:
    record = logging.LogRecord("x", logging.INFO, "", 0, "applied", (), None)
    line: dict[str, object] = json.loads(JsonFormatter().format(record))
    return line


async def test_lines_say_which_reconcile_they_are_of() -> None:
    async def reconcile(key: str, generation: int) -> dict[str, object]:
        with about(reconcile=f"id-{key}", detector=key):
            note(generation=generation)
            await asyncio.sleep(0)
            return a_line()

    lines = await asyncio.gather(reconcile("a", 1), reconcile("b", 2))
    told = [(line["reconcile"], line["detector"], line["generation"]) for line in lines]
    assert told == [("id-a", "a", 1), ("id-b", "b", 2)]
    assert "reconcile" not in a_line()


def test_series_of_gpus_have_the_names_that_the_exporter_of_today_gives_them() -> None:
    usual = read_settings(ENOUGH).defaults.gpu
    for said in ("monitoring", ""):
        told = read_settings(ENOUGH | {"YOLOFLEET_GPU_EXPORTER": said}).defaults.gpu
        assert (told.exporter, usual.exporter) == (said, "gpu-operator")
    with pytest.raises(InvalidSettings, match="must be a namespace"):
        read_settings(ENOUGH | {"YOLOFLEET_GPU_EXPORTER": 'a"} or {b="'})
    assert usual == GpuSeries("DCGM_FI_PROF_GR_ENGINE_ACTIVE", "DCGM_FI_DEV_GPU_UTIL")
    renamed = {"YOLOFLEET_GPU_ACTIVE": "dcgm_gr_engine_util_ratio"}
    assert read_settings(ENOUGH | renamed).defaults.gpu.active == "dcgm_gr_engine_util_ratio"
    for wrong in ('x{pod="a"}', "0_first", "two words"):
        with pytest.raises(InvalidSettings, match="YOLOFLEET_GPU_UTILIZATION"):
            read_settings(ENOUGH | {"YOLOFLEET_GPU_UTILIZATION": wrong})
