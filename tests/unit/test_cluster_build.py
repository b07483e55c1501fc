import os
import stat
from dataclasses import replace
from pathlib import Path

import pytest

from cluster import assets, debian, imagebuild, images, kindcluster, prometheus, runc_shim, up
from cluster.gobuild import Module, go_mod
from cluster.mode import Mode
from demo_cluster import installation


def test_staging_replacements_of_a_module_become_published_versions() -> None:
    module = Module(
        name="k",
        path="k8s.io/kubernetes",
        version="v1.34.3",
        staging_version="v0.34.3",
        replacements=(("example.com/x", "v1.2.3"),),
    )
    upstream = (
        "module k8s.io/kubernetes\n\ngo 1.24.0\n\n"
        "replace (\n\tk8s.io/api => ./staging/src/k8s.io/api\n)\n"
    )
    text = go_mod(module, upstream)
    assert "go 1.24.0\n" in text
    assert "require k8s.io/kubernetes v1.34.3\n" in text
    assert "replace k8s.io/api => k8s.io/api v0.34.3\n" in text
    assert "replace example.com/x => example.com/x v1.2.3\n" in text


def test_versions_of_another_workspace_win_over_what_a_module_asks_for() -> None:
    module = Module(name="m", path="example.com/m", version="v1.0.0")
    resolved = (
        "module cluster.local/k\n\nrequire example.com/k v1.34.3\n\n"
        "require (\n\texample.com/net v0.38.0 // indirect\n)\n\n"
        "replace (\n\texample.com/api => example.com/api v0.34.3\n)\n"
    )
    text = go_mod(module, "module example.com/m\n\ngo 1.24.0\n", resolved=resolved)
    for pinned in ("k v1.34.3", "net v0.38.0", "api v0.34.3"):
        name = pinned.split()[0]
        assert f"replace example.com/{name} => example.com/{pinned}\n" in text


def test_what_a_pinned_module_replaces_is_replaced_but_not_by_folders_of_its_own() -> None:
    module = Module(name="m", path="example.com/m", version="v1.0.0", pinned=True)
    upstream = (
        "module example.com/m\n\ngo 1.24.0\n\nreplace (\n\t// why\n"
        "\texample.com/net => example.com/net v0.31.7\n\texample.com/x => ./x\n)\n"
    )
    text = go_mod(module, upstream)
    assert "replace example.com/net => example.com/net v0.31.7\n" in text
    assert "example.com/x" not in text
    loose = replace(module, pinned=False)
    assert "replace" not in go_mod(loose, upstream)
    assert loose.key != module.key


def test_prometheus_scrapes_by_the_lines_of_the_guide_as_they_stand_there() -> None:
    told = prometheus.configuration()
    assert [job["job_name"] for job in told["scrape_configs"]] == [
        "yolofleet-detectors",
        "yolofleet-operator",
    ]
    [found_by] = told["scrape_configs"][1]["kubernetes_sd_configs"]
    assert found_by["namespaces"] == {"names": [installation.NAMESPACE]}, "where ours is"


def test_a_modules_key_changes_with_its_settings_but_not_with_what_is_said_about_it() -> None:
    plain = Module(name="x", path="example.com/x", version="v1.0.0", packages=("example.com/x",))
    same = Module(
        name="x", path="example.com/x", version="v1.0.0", packages=("example.com/x",), cost="long"
    )
    tagged = Module(
        name="x", path="example.com/x", version="v1.0.0", packages=("example.com/x",), tags="t"
    )
    assert plain.key == same.key
    assert plain.key != tagged.key
    assert plain.key.startswith("x-v1.0.0-")


def test_inputs_are_what_the_dockerfile_copies_from_its_context() -> None:
    dockerfile = (
        "FROM base AS build\n"
        "# COPY nothing here/\n"
        "COPY pyproject.toml README.md ./\n"
        "COPY --chown=1:1 operator/yolofleet \\\n    /app/yolofleet\n"
        "FROM base\n"
        "COPY --from=build /venv /venv\n"
        "COPY pyproject.toml /\n"
    )
    assert images.inputs(dockerfile) == ["pyproject.toml", "README.md", "operator/yolofleet"]


def test_a_release_labels_its_images_and_others_are_built_without() -> None:
    file, context = Path("D"), Path("c")
    plain = imagebuild.command(["t"], file, context, {"A": "1"}, target="cpu")
    labelled = imagebuild.command(
        ["t"], file, context, {"A": "1"}, target="cpu", labels={"x": "y z"}
    )
    assert "--label" not in plain
    assert labelled[labelled.index("--label") + 1] == "x=y z"
    assert [word for word in labelled if word not in {"--label", "x=y z"}] == plain


def test_an_image_reads_the_same_out_of_a_checkout_that_others_may_not_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("YOLOFLEET_CACHE", str(tmp_path / "cache"))
    before = os.umask(0o077)
    try:
        (tmp_path / "code/page").mkdir(parents=True)
        for name in ("code/page/a.py", "code/run", "lock.txt"):
            (tmp_path / name).touch()
        (tmp_path / "code/run").chmod(0o700)
        (tmp_path / "code/link").symlink_to("/somewhere/else")
        files = {"app/code": tmp_path / "code", "lock.txt": tmp_path / "lock.txt"}
        with imagebuild.context(files) as folder:
            modes = {
                str(path.relative_to(folder)): stat.S_IMODE(path.stat().st_mode)
                for path in folder.rglob("*")
                if not path.is_symlink()
            }
            assert (folder / "app/code/link").readlink() == Path("/somewhere/else")
    finally:
        os.umask(before)
    del modes["app"]  # no image has what is above the things it copies
    folders = dict.fromkeys(("app/code", "app/code/page"), 0o755)
    assert modes == {
        **folders,
        "app/code/run": 0o755,
        "app/code/page/a.py": 0o644,
        "lock.txt": 0o644,
    }


@pytest.mark.parametrize(
    ("buildx", "told"),
    [(0, {"BUILDX_NO_DEFAULT_ATTESTATIONS": "1"}), (1, {"DOCKER_BUILDKIT": "0"})],
)
def test_no_builder_attests_when_it_built_an_image(
    buildx: int, told: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "docker").write_text(f"#!/bin/sh\nexit {buildx}\n")
    (tmp_path / "docker").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    monkeypatch.delenv("DOCKER_BUILDKIT", raising=False)
    assert imagebuild.builder_environment() == told


def test_programs_given_one_by_one_come_before_the_folder(tmp_path: Path) -> None:
    for name in ("a/etcd", "b/etcd", "b/kubectl"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    found = assets.given(
        {"TEST_ASSET_ETCD": str(tmp_path / "a/etcd"), "KUBEBUILDER_ASSETS": str(tmp_path / "b")}
    )
    assert found == {"etcd": tmp_path / "a/etcd", "kubectl": tmp_path / "b/kubectl"}


def test_a_prometheus_that_is_there_need_not_be_built(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "promtool-3"
    program.touch()
    monkeypatch.setenv("TEST_ASSET_PROMTOOL", str(program))
    assert assets.prometheus("promtool") == program
    monkeypatch.setattr("cluster.components.prometheus", lambda command: Path(command))
    monkeypatch.setenv("TEST_ASSET_PROMTOOL", str(tmp_path / "gone"))
    assert assets.prometheus("promtool") == Path("promtool")


def test_the_mirror_is_the_one_this_host_uses_for_the_same_release() -> None:
    targets = (
        "https://mirror/security Debian bookworm-security\n"
        "https://mirror/node node nodistro\n"
        "https://mirror/debian Debian bookworm\n"
    )
    assert debian.mirror(targets) == "https://mirror/debian"
    assert debian.mirror("https://mirror/ubuntu Ubuntu noble\n\n") is None


def test_the_ingress_is_mapped_to_this_machine_only() -> None:
    for mode in Mode:
        settings = kindcluster.config(mode, cgroup_v1=False, port=18080)
        (mapping,) = settings["nodes"][0]["extraPortMappings"]
        assert mapping == {
            "containerPort": 30080,
            "hostPort": 18080,
            "listenAddress": "127.0.0.1",
        }


def test_only_the_built_node_replaces_kinds_network() -> None:
    pulled = kindcluster.config(Mode.PULL, cgroup_v1=False, port=1)
    built = kindcluster.config(Mode.BUILD, cgroup_v1=False, port=1)
    assert "networking" not in pulled
    assert "containerdConfigPatches" not in pulled
    assert built["networking"] == {"disableDefaultCNI": True}


def test_kubelet_is_let_run_on_cgroup_v1_only_there() -> None:
    old = kindcluster.config(Mode.PULL, cgroup_v1=True, port=1)["kubeadmConfigPatches"][0]
    new = kindcluster.config(Mode.PULL, cgroup_v1=False, port=1)["kubeadmConfigPatches"][0]
    assert '"failCgroupV1": false' in old
    assert "failCgroupV1" not in new


def test_a_deployment_without_available_pods_does_not_count() -> None:
    deployments = """{"items": [
        {"metadata": {"namespace": "a", "name": "ready"}, "status": {"availableReplicas": 1}},
        {"metadata": {"namespace": "a", "name": "waits"}, "status": {"replicas": 1}},
        {"metadata": {"namespace": "a", "name": "new"}}
    ]}"""
    assert up.available(deployments) == {"a/ready"}


def test_capabilities_are_read_from_the_bounding_set() -> None:
    names = runc_shim.allowed("Name:\tx\nCapEff:\t0\nCapBnd:\t000001fffeffffff\n")
    assert len(names) == 40
    assert "CAP_SYS_RESOURCE" not in names
    assert {"CAP_CHOWN", "CAP_SYS_TIME", "CAP_CHECKPOINT_RESTORE"} <= names


def test_a_process_keeps_only_what_the_host_has() -> None:
    process = {"capabilities": {"bounding": ["CAP_A", "CAP_B"], "effective": ["CAP_B"]}}
    runc_shim.restrict(process, frozenset({"CAP_A"}))
    assert process == {"capabilities": {"bounding": ["CAP_A"], "effective": []}}


@pytest.mark.parametrize(
    ("arguments", "found"),
    [
        (["--root", "/r", "create", "--bundle", "/b", "id"], (Path("/b/config.json"), True)),
        (["exec", "--process", "/p", "--detach", "id"], (Path("/p"), False)),
        (["--root", "/r", "delete", "id"], None),
    ],
)
def test_the_shim_rewrites_what_runc_is_about_to_start(
    arguments: list[str], found: tuple[Path, bool] | None
) -> None:
    assert runc_shim.spec_file(arguments) == found
