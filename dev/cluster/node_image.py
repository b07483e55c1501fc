"""kind's node image, built here: Debian, kind's files, and the control plane's images inside."""

from __future__ import annotations

import shlex
import tempfile
import uuid
from pathlib import Path

from cluster import components, debian, engine, gobuild, imagebuild, versions
from cluster.cache import content_hash
from cluster.paths import HERE, cache_root
from cluster.steps import run, step

VERSION = f"v{versions.KUBERNETES}"
RECIPE = ("docker/node.Dockerfile", "docker/binary.Dockerfile", "docker/kube-proxy.Dockerfile")


def tag() -> str:
    """Name the node image after everything that decides what is in it."""
    pinned = (
        components.KUBERNETES, components.ETCD, components.COREDNS, components.KIND
    )  # fmt: skip
    recipe = content_hash(
        [HERE / file for file in (*RECIPE, "manifests/10-ptp.conflist", "node_image.py")],
        root=HERE,
        extra=[module.key for module in pinned],
    )
    return f"yolofleet/node:{VERSION}-{recipe}"


def image() -> str:
    """Return the tag of a node image that the engine has."""
    name = tag()
    if not engine.has_image(name):
        base = _build_base(f"{name}-base")
        _commit(base, name, _build_control_plane())
    return name


def _build_base(name: str) -> str:
    with tempfile.TemporaryDirectory(dir=cache_root()) as folder:
        files = Path(folder) / "files"
        imagebuild.place(gobuild.source(components.KIND) / "images/base/files", files)
        for scripts in ("usr/local/bin", "kind/bin"):
            for script in (files / scripts).iterdir():
                script.chmod(0o755)  # a module's archive does not tell
        kubernetes = {
            part: components.kubernetes(part) for part in ("kubeadm", "kubelet", "kubectl")
        }
        imagebuild.build(
            name,
            "node.Dockerfile",
            {"files": files, "10-ptp.conflist": HERE / "manifests/10-ptp.conflist", **kubernetes},
            args={
                "BASE_IMAGE": debian.image(),
                "PAUSE_IMAGE": versions.PAUSE_IMAGE,
                "KUBERNETES_VERSION": VERSION,
            },
        )
    return name


def _build_control_plane() -> list[str]:
    """Build what `kubeadm config images list` names."""
    programs = {
        **{
            f"registry.k8s.io/{name}:{VERSION}": components.kubernetes(name)
            for name in ("kube-apiserver", "kube-controller-manager", "kube-scheduler")
        },
        versions.ETCD_IMAGE: components.etcd(),
        versions.COREDNS_IMAGE: components.coredns(),
        versions.PAUSE_IMAGE: gobuild.own("pause"),
    }
    for name, program in programs.items():
        imagebuild.build_of_binary(name, program)
    proxy = f"registry.k8s.io/kube-proxy:{VERSION}"
    imagebuild.build(
        proxy,
        "kube-proxy.Dockerfile",
        {"kube-proxy": components.kubernetes("kube-proxy")},
        args={"BASE_IMAGE": debian.image()},
    )
    return [*programs, proxy]


def _commit(base: str, name: str, images: list[str]) -> None:
    """Import `images` into containerd's store in a container of `base`, and make it `name`."""
    container = f"yolofleet-node-{uuid.uuid4().hex[:8]}"
    imports = "ctr -n k8s.io images import --all-platforms --no-unpack --digests -"
    save = shlex.join(["docker", "save", *images])
    script = f"""
    within_a_minute() {{ for _ in $(seq 60); do "$@" && return; sleep 1; done; return 1; }}
    answers() {{ docker exec {container} ctr version; }}
    has_ended() {{ docker exec {container} sh -c '! pgrep -x containerd'; }}
    fail() {{ echo "containerd $1 within a minute"; exit 1; }}
    docker run -d --name {container} --entrypoint sleep {base} infinity
    docker exec -d {container} containerd
    within_a_minute answers || fail "did not answer"
    {save} | docker exec -i {container} {imports}
    docker exec {container} ctr -n k8s.io images list -q
    docker exec {container} pkill -TERM -x containerd
    # Before that its store on disk may be torn.
    within_a_minute has_ended || fail "did not end"
    docker commit --change 'ENTRYPOINT ["/usr/local/bin/entrypoint","/sbin/init"]' \\
        --change 'CMD []' {container} {name}
    """
    with step(f"build image {name}", f"imports {len(images)} images"):
        try:
            run(["bash", "-euo", "pipefail", "-c", script], log="node-image")
        finally:
            run(["docker", "rm", "-f", container], log="node-image")
        # Outside of the node they would pass for what the registry of that name serves.
        run(["docker", "image", "rm", *images], log="node-image")
