"""What `make pull-walk` serves: everything that the pull way asks for, under the same names."""

import hashlib
import tarfile
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from cluster import components, istio, pulled, released, versions
from cluster.errors import NotPossibleHere
from cluster.mode import Mode
from pulling import own_engine, served


def test_a_chart_names_the_images_of_its_release() -> None:
    values = {"_internal_defaults_do_not_set": {"global": {"hub": "testing", "tag": "latest"}}}
    found = served.as_released(values)["_internal_defaults_do_not_set"]["global"]
    assert found == {"hub": served.HUB, "tag": versions.ISTIO}


def test_istiod_asks_its_proxies_for_nothing_that_upstream_envoy_lacks() -> None:
    found = served.as_released({"image": "pilot", "telemetry": {"v2": {}}, "env": {"A": "b"}})
    assert found["telemetry"] == {"v2": {}, "enabled": False}
    assert found["env"]["A"] == "b"
    assert found["env"]["PILOT_ENABLE_ALPN_FILTER"] == "false"


def test_other_charts_are_served_as_they_are() -> None:
    assert served.as_released({"service": {"type": "NodePort"}}) == {
        "service": {"type": "NodePort"}
    }


@pytest.mark.parametrize("name", served.CHARTS)
def test_the_site_of_a_chart_is_led_to_what_is_served(name: str) -> None:
    [_, _, site, _, version] = istio._chart(Mode.PULL, name)
    assert urlsplit(site).hostname in served.SITES
    assert urlsplit(site).path == "/charts"  # the folder that `files` writes
    assert version == versions.ISTIO


def test_programs_are_served_where_they_are_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "program"
    program.write_bytes(b"#!/bin/sh\n")
    for made in ("kind", "helm"):
        monkeypatch.setattr(components, made, lambda: program)
    monkeypatch.setattr(components, "kubernetes", lambda _: program)
    monkeypatch.setattr(served, "_charts", lambda *_: None)
    monkeypatch.setenv(pulled.VARIABLE, served.NODE)
    site = tmp_path / "site"
    served.files(site)

    asked: list[str] = []

    def find(name: str, url: str, checksum: str, *_: object) -> Path:
        asked.append(name)
        address = urlsplit(url)
        assert address.hostname in served.SITES
        data = (site / address.path[1:]).read_bytes()
        digest = (site / urlsplit(checksum).path[1:]).read_text().split()[0]
        assert hashlib.sha256(data).hexdigest() == digest
        return program

    monkeypatch.setattr(released, "_find", find)
    monkeypatch.setattr(released, "_link", lambda *_: None)
    released.provide(Mode.PULL)
    assert asked == ["kubectl", "kind", "helm"]
    with tarfile.open(next(site.glob("helm-*.tar.gz"))) as archive:
        assert [Path(name).name for name in archive.getnames()] == ["helm"]


def test_neither_go_nor_what_was_built_is_on_the_path() -> None:
    folders = own_engine.PATH.split(":")
    assert "/usr/local/bin" not in folders
    assert all(folder.startswith(("/usr", "/sbin", "/bin")) for folder in folders)


@pytest.mark.parametrize(
    ("image", "version"),
    [
        ("", versions.NODE_IMAGE.partition(":v")[2].partition("@")[0]),
        ("kindest/node:v1.34.3", "1.34.3"),
        ("mirror.example.com:5000/kind/node:v1.35.0@sha256:" + "a" * 64, "1.35.0"),
    ],
)
def test_kubectl_follows_the_image_of_the_node(
    image: str, version: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(pulled.VARIABLE, image)
    assert pulled.kubernetes() == version


def test_an_image_of_a_node_without_a_version_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(pulled.VARIABLE, "kindest/node:latest")
    with pytest.raises(NotPossibleHere, match=r"YOLOFLEET_NODE_IMAGE is 'kindest/node:latest'"):
        pulled.kubernetes()
