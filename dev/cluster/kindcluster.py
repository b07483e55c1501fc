"""The kind cluster itself: made, looked at, deleted."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from cluster import client, engine, imagebuild, node_image, pulled
from cluster.mode import Mode
from cluster.paths import CLUSTER, HERE, ingress_port, tools
from cluster.steps import again, output, run, step

NODE: Final = f"{CLUSTER}-control-plane"
INGRESS_NODE_PORT: Final = 30080  # as in manifests/ingressgateway.yaml
REGISTRIES: Final = "/etc/containerd/certs.d"
SERVICES: Final = "10.96.0.0/16"  # kind's default
READY_S = 180
PAUSE_S = 10.0


def config(mode: Mode, *, cgroup_v1: bool, port: int) -> dict[str, Any]:
    """Return kind's configuration: one node whose ingress is `port` on 127.0.0.1."""
    kubelet = {
        "kind": "KubeletConfiguration",
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        **({"failCgroupV1": False} if cgroup_v1 else {}),  # from 1.35 on it refuses to start
    }
    # Smaller requests for the control plane: with the defaults nothing else fits on two cores.
    patches = {"kind": "InitConfiguration", "patches": {"directory": "/yolofleet-patches"}}
    node = {
        "role": "control-plane",
        "extraPortMappings": [
            {
                "containerPort": INGRESS_NODE_PORT,
                "hostPort": port,
                "listenAddress": "127.0.0.1",
            }
        ],
        "extraMounts": [
            {
                "hostPath": str(HERE / "manifests/control-plane"),
                "containerPath": "/yolofleet-patches",
                "readOnly": True,
            }
        ],
    }
    stock = {
        "kind": "Cluster",
        "apiVersion": "kind.x-k8s.io/v1alpha4",
        "nodes": [node],
        "kubeadmConfigPatches": [json.dumps(kubelet), json.dumps(patches)],
    }
    if mode is Mode.PULL:
        return stock
    # The built image brings its own network, and may run where nobody may raise an OOM score.
    oom = '[plugins."io.containerd.grpc.v1.cri"]\nrestrict_oom_score_adj = true\n'
    # The stock image reads its registries from there, which is empty unless somebody fills it.
    mirrors = f'[plugins."io.containerd.grpc.v1.cri".registry]\nconfig_path = "{REGISTRIES}"\n'
    return {
        **stock,
        "networking": {"disableDefaultCNI": True},
        "containerdConfigPatches": [oom, mirrors],
    }


def mode_of_running() -> Mode | None:
    """Return how the existing node got its image, or None if there is no node."""
    image = output(["docker", "inspect", "--format", "{{.Config.Image}}", NODE])
    if image is None:
        return None
    return Mode.BUILD if image.startswith("yolofleet/") else Mode.PULL


def runs() -> bool:
    """Return whether there is a cluster of this cache whose node runs, even if it is silent."""
    state = output(["docker", "inspect", "--format", "{{.State.Running}}", NODE])
    return state == "true" and tools().kubeconfig.exists()


def create(mode: Mode) -> None:
    """Make the cluster anew: a node seldom survives a restart of the engine, and this is quick."""
    image = node_image.image() if mode is Mode.BUILD else pulled.node_image()
    modern = Path("/sys/fs/cgroup/cgroup.controllers").exists() or not Path("/sys/fs").exists()
    settings = config(mode, cgroup_v1=not modern, port=ingress_port())
    command = [
        *(
            str(tools().kind),
            "create",
            "cluster",
            "--name",
            CLUSTER,
            "--image",
            image,
            "--config",
            "-",
        ),
        *("--kubeconfig", str(tools().kubeconfig), "--wait", f"{READY_S}s"),
    ]

    def make() -> None:
        delete()
        run(command, log="kind", stdin=json.dumps(settings).encode())

    with step(
        f"kind create cluster {CLUSTER}", "pulls the node image" if mode is Mode.PULL else ""
    ):
        again(make, pauses_s=[PAUSE_S])  # kubeadm gives a busy machine only so much time
        # One resolver is enough for one node.
        keep_service_addresses_inside()
        client.kubectl("scale", "deployment/coredns", "--namespace=kube-system", "--replicas=1")


def keep_service_addresses_inside() -> None:
    """Refuse what is sent to a service whose address kube-proxy does not know (yet).

    A node that outlived a restart of the engine has forgotten it.

    It would leave the node. On a network where something answers for every address, the API server
    then keeps that connection, and takes the stranger's 404 for that of its metrics or webhook.
    """
    for chain in ("OUTPUT", "FORWARD"):  # behind kube-proxy's translation: what is left over
        rule = f"{chain} -d {SERVICES} -j REJECT"
        script = f"iptables -w 60 -C {rule} || iptables -w 60 -A {rule}"
        run(["docker", "exec", NODE, "sh", "-c", script], log="kind")


def gateway() -> str:
    """Return the address that this host has in the node's network, and nobody sees from outside."""
    told = output(["docker", "inspect", "--format", "{{json .NetworkSettings.Networks}}", NODE])
    [network] = json.loads(told or "[null]").values()
    return str(network["Gateway"])


def redirect(registry: str, to: str) -> None:
    """Have this node ask `to` (HOST:PORT, plain HTTP) for what is in `registry`."""
    hosts = f'[host."http://{to}"]\n  capabilities = ["pull", "resolve"]\n'
    folder = f"{REGISTRIES}/{registry}"
    script = f"mkdir -p '{folder}' && cat > '{folder}/hosts.toml'"
    run(["docker", "exec", "-i", NODE, "sh", "-c", script], log="kind", stdin=hosts.encode())


def delete() -> None:
    """Delete the cluster if there is one."""
    if tools().kind.exists():
        kubeconfig = ("--kubeconfig", tools().kubeconfig)
        run([tools().kind, "delete", "cluster", "--name", CLUSTER, *kubeconfig], log="kind")
    tools().kubeconfig.unlink(missing_ok=True)


def load_program(image: str, program: Callable[[], Path], *, user: int = 0) -> None:
    """Have the image of one static program in the node; `program` compiles it if there is none."""
    if not engine.has_image(image):
        imagebuild.build_of_binary(image, program(), user=user)
    load([image])


def load(images: list[str]) -> None:
    """Copy images of the engine to the node, except those that are there."""
    there = output(["docker", "exec", NODE, "ctr", "-n", "k8s.io", "images", "list", "-q"]) or ""
    missing = [image for image in images if f"docker.io/{image}" not in there.splitlines()]
    if missing:
        with step(f"load {', '.join(missing)} into the node"):
            run([tools().kind, "load", "docker-image", "--name", CLUSTER, *missing], log="kind")
