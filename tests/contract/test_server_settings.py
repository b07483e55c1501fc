"""What the operator tells the server is what the server understands; what it reads back, too."""

import re
from pathlib import Path
from typing import Any

import pytest

import server_settings
from yolofleet.api.detector import URI_SCHEMES, Backend, Detector, Head, Precision, Profile
from yolofleet.api.pod_template import GUARD_SETTINGS, MODEL_SETTINGS, SERVER_SETTINGS
from yolofleet.plan.defaults import Defaults
from yolofleet.plan.revisions import stable_revision
from yolofleet.workloads import deployment
from yolofleet.workloads.failures import EXIT_BLIND, EXIT_CONFIG
from yolofleet.workloads.workload import PlannedRevision, Record
from yoloserve import __main__ as server
from yoloserve import errors
from yoloserve.http.server import BLIND_EXIT
from yoloserve.settings import ENV_PREFIX, BackendName, HeadName, PrecisionName, Settings
from yoloserve.settings import Profile as ServedProfile

ROOT = Path(__file__).resolve().parents[2]
DEFAULTS = Defaults(image_cpu="cpu", image_torch="torch", image_gpu="gpu")

FULL = {
    "model": {
        "uri": "https://models.example.com/a.onnx",
        "sha256": "a" * 64,
        "classes": ["a"],
        "allowCode": ["torchscript", "engine", "pickle"],
        "head": "end-to-end",
        "allowBlind": True,
    },
    "runtime": {"backend": "openvino", "precision": "bf16"},
    "inference": {
        "profile": "throughput",
        "imageSize": 320,
        "confidence": 0.4,
        "iou": 0.5,
        "maxDetections": 7,
        "agnosticNms": True,
        "deadline": "2s",
        "maxBatch": 4,
    },
    "access": {
        "jwt": {
            "issuer": "https://login.example.com",
            "jwksUri": "http://keycloak.auth.svc:8080/certs",
            "audiences": ["gate"],
        },
        "apiKeys": {"secretName": "gate-keys"},
        "shadowKey": {"secretName": "gate-shadow"},
        "framesKey": {"secretName": "gate-frames"},
        "metricsOpen": False,
        "corsOrigins": ["https://app.example.com", "http://localhost:3000"],
    },
    "rollout": {"analysis": {"golden": {"configMap": "known"}}},
}


def environment(spec: dict[str, Any]) -> dict[str, str]:
    raw = {
        "metadata": {"name": "gate", "namespace": "n", "uid": "u", "generation": 1},
        "spec": spec,
    }
    detector = Detector.parse(raw)
    revision = stable_revision(detector, DEFAULTS)
    made = deployment.build(detector, PlannedRevision(revision, Record(revision.record()), 1))
    [container] = made["spec"]["template"]["spec"]["containers"]
    return {entry["name"]: entry["value"] for entry in container["env"]}


@pytest.mark.parametrize("spec", [FULL, {"model": {"uri": "demo://shapes"}}])
def test_the_server_reads_all_that_the_operator_writes(
    spec: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    told = environment(spec)
    ours = {name for name in told if name.startswith(ENV_PREFIX)}
    assert {name.removeprefix(ENV_PREFIX).lower() for name in ours} <= set(Settings.model_fields)
    for name, value in told.items():
        monkeypatch.setenv(name, value)
    settings = Settings.read()
    assert settings.model == spec["model"]["uri"]
    assert settings.name == "gate"
    assert settings.drain_seconds > 0


def test_every_field_of_the_spec_arrives(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in environment(FULL).items():
        monkeypatch.setenv(name, value)
    settings = Settings.read()
    assert settings.sha256 == "a" * 64
    assert settings.classes == ("a",)
    assert settings.allow_torchscript
    assert settings.allow_engine
    assert settings.allow_pickle
    assert settings.head == "end-to-end"
    assert settings.allow_blind
    assert (settings.backend, settings.precision) == ("openvino", "bf16")
    assert (settings.profile, settings.max_batch, settings.image_size) == ("throughput", 4, 320)
    assert (settings.confidence, settings.iou, settings.max_detections) == (0.4, 0.5, 7)
    assert settings.agnostic_nms is True
    assert settings.deadline_ms == 2000
    assert settings.jwt_issuer == "https://login.example.com"
    assert settings.jwt_jwks_uri == "http://keycloak.auth.svc:8080/certs"
    assert settings.jwt_audiences == ("gate",)
    assert settings.api_keys_file == Path("/mnt/api-keys/keys")
    assert settings.metrics_open is False
    assert settings.cors_origins == ("http://localhost:3000", "https://app.example.com")
    assert (settings.evidence_port, settings.namespace) == (8081, "n")
    assert settings.live_dir == Path("/etc/yoloserve/live")
    assert settings.shadow_key_file == Path("/etc/yoloserve/shadow/key")
    assert settings.frames_key_file == Path("/etc/yoloserve/frames/key")
    assert settings.golden_dir == Path("/etc/yoloserve/golden")


def test_what_the_operator_tells_the_server_cannot_be_told_otherwise() -> None:
    told = {name.removeprefix(ENV_PREFIX) for name in environment(FULL) if ENV_PREFIX in name}
    refused = SERVER_SETTINGS | GUARD_SETTINGS | MODEL_SETTINGS
    assert told <= refused.keys()
    assert {name.lower() for name in refused} <= set(Settings.model_fields)


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (Backend, BackendName),
        (Precision, PrecisionName),
        (Profile, ServedProfile),
        (Head, HeadName),
    ],
)
def test_both_know_the_same_words(ours: Any, theirs: Any) -> None:
    assert {value.value for value in ours} == {value.value for value in theirs}


def test_the_defaults_are_the_same() -> None:
    told = environment({"model": {"uri": "demo://shapes"}})
    for name in ("CONFIDENCE", "IOU", "MAX_DETECTIONS", "DEADLINE_MS", "MAX_BATCH"):
        default = Settings.model_fields[name.lower()].default
        assert float(told[ENV_PREFIX + name]) == float(default), name


def test_a_refused_start_is_told_by_the_same_exit_status() -> None:
    assert server.EX_CONFIG == EXIT_CONFIG


def test_a_server_that_went_blind_is_told_by_an_exit_status_of_its_own() -> None:
    assert BLIND_EXIT == EXIT_BLIND


def test_the_guide_knows_every_reason_of_a_refused_start() -> None:
    guide = (ROOT / "docs" / "guides" / "releases.md").read_text()
    for kind in errors.StartupFailure.__subclasses__():
        assert kind.__name__ in guide, kind.__name__


def test_the_reference_names_the_schemes_that_are_understood() -> None:
    told = Settings.model_fields["model"].description or ""
    for scheme in re.findall(r"(\w+)://", told):
        assert scheme in URI_SCHEMES


def test_the_page_of_the_servers_settings_is_the_generated_one() -> None:
    assert server_settings.PAGE.read_text() == server_settings.page(), "run `make generate`"
