"""The operator runs with the rights that the chart gives it, of the cluster or of namespaces."""

import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from cluster import assets
from controlplane.installation import DETECTOR_CRD
from controlplane.kube import Kube, connect, eventually
from controlplane.plane import ControlPlane
from controlplane.process import OperatorProcess
from yolofleet.api import names
from yolofleet.cluster import kinds

pytestmark = pytest.mark.controlplane


def as_account(plane: ControlPlane, namespace: str, account: str, folder: Path) -> Path:
    """Return a kubeconfig with a token of the chart's service account."""
    command = ("--kubeconfig", str(plane.kubeconfig()), "-n", namespace, "create", "token", account)
    token = subprocess.run(
        [str(assets.directory() / "kubectl"), *command],
        capture_output=True,
        text=True,
        timeout=180,
        check=True,
    ).stdout.strip()
    config = yaml.safe_load(plane.kubeconfig().read_text())
    config["users"][0]["user"] = {"token": token}
    path = folder / "account.kubeconfig"
    path.write_text(yaml.safe_dump(config))
    return path


@pytest.mark.parametrize("watched", [[], ["cameras"]], ids=["cluster", "namespace"])
async def test_the_rights_of_the_chart_are_enough(
    plane: ControlPlane,
    chart: Any,
    await_right: Callable[..., None],
    cleared: None,
    tmp_path: Path,
    watched: list[str],
) -> None:
    release = "one" if watched else "all"
    async with connect(plane.kubeconfig()) as client:
        kube = Kube(client)
        for name in ("cameras", "labs"):
            await kube.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
        await kube.install(DETECTOR_CRD)
        values = {"watchNamespaces": watched, "crds": {"enabled": False}}
        chart.install(release, release, plane.kubeconfig(), **values)
        named = f"system:serviceaccount:{release}:{release}-yolofleet"
        await_right(named, "list deployments.apps", "cameras")
        await_right(named, "create leases.coordination.k8s.io", release)
        account = as_account(plane, release, f"{release}-yolofleet", tmp_path)
        operator = OperatorProcess(
            account,
            tmp_path / "operator.log",
            {
                "YOLOFLEET_LEASE_NAMESPACE": release,
                "YOLOFLEET_LEASE_NAME": f"{release}-yolofleet",
                "YOLOFLEET_NAMESPACES": ",".join(watched),
            },
        )
        operator.start()
        try:
            await operator.ready()
            for namespace in ("cameras", "labs"):
                await kube.create(
                    {
                        "apiVersion": names.API_VERSION,
                        "kind": names.KIND,
                        "metadata": {"name": release, "namespace": namespace},
                        "spec": {"model": {"uri": "demo://shapes"}, "replicas": 2},
                    }
                )

            async def told(namespace: str) -> bool:
                raw = await kube.get(kinds.DETECTOR, namespace, release)
                return bool(raw["status"]["observedGeneration"] == raw["metadata"]["generation"])

            async def made(namespace: str) -> bool:
                children = [
                    child
                    for kind in (kinds.DEPLOYMENT, kinds.SERVICE, kinds.PDB)
                    for child in await kube.list(kind, namespace)
                    if child["metadata"]["name"].startswith(release)
                ]
                return await told(namespace) and len(children) >= 4

            await eventually(lambda: made("cameras"))
            if watched:
                raw = await kube.get(kinds.DETECTOR, "labs", release)
                never = raw["status"]["observedGeneration"] == -1
                assert never, "labs is not this operator's"
                assert not raw["status"]["conditions"]
            else:
                await eventually(lambda: made("labs"))
            assert operator.exit_status() is None
            refused = [line for line in operator.log() if "orbidden" in str(line)]
            assert not refused
        finally:
            operator.kill()
