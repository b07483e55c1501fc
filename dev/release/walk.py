"""`make release-walk`: two releases to a registry of our own, and an installation's whole life.

helm installs from the registry, a detector serves, the chart is upgraded, rolled back and
uninstalled under requests, and no pod of the detector may be another one, or the same one
restarted. The cluster is made for it (without Istio), and goes with the registry when this ends,
also by SIGKILL.
"""

from __future__ import annotations

import asyncio
import json
import shlex
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from cluster import kindcluster, mode, registry, released
from cluster.cache import lock
from cluster.client import helm_install
from cluster.errors import ClusterError, NotPossibleHere
from cluster.paths import CLUSTER, DEFAULT_CLUSTER, tools
from cluster.steps import log_path, run
from demo_cluster import pictures, screen
from demo_cluster.detector import Detector
from demo_cluster.errors import DemoError, NotYet
from demo_cluster.forwarding import forwarded
from demo_cluster.kube import DETECTORS, Kubectl
from demo_cluster.load import Load
from demo_cluster.waiting import eventually
from release import chart, making
from release.errors import Refused, ReleaseError, WrongResult
from release.making import Listing
from release.registry import chart_reference, plain

PATH: Final = "yolofleet"  # below the registry's address
VERSIONS: Final = ("0.0.1-walk.1", "0.0.1-walk.2")
IMAGES: Final = f"{registry.LOOPBACK}:*/{PATH}/*:*-walk.*"
RELEASE: Final = "yolofleet"
NAMESPACE: Final = "yolofleet-system"
REQUESTS: Final = 100
FOUND_AT_LEAST: Final = 0.7
DETECTOR: Final = {
    "apiVersion": "yolofleet.io/v1alpha1",
    "kind": "YoloDetector",
    "metadata": {"name": "gate"},
    "spec": {
        "model": {"uri": "demo://shapes"},
        "inference": {"deadline": "30s"},
        "resources": {
            "requests": {"cpu": "100m", "memory": "256Mi"},
            "limits": {"memory": "1Gi"},
        },
        "replicas": 2,
        "traffic": {"provider": "service"},
    },
}

Pods = dict[str, tuple[int, str]]
"""Of each pod's uid: how often its containers were restarted, and the image that runs."""


def main() -> int:
    """Walk; return the exit status."""
    started = time.monotonic()
    try:
        if CLUSTER == DEFAULT_CLUSTER:
            raise NotPossibleHere(
                "This makes and deletes a cluster: name one that is nobody's in YOLOFLEET_CLUSTER,"
                " as `make release-walk` does."
            )
        with cluster(), registry.serve(registry.LOOPBACK, kindcluster.gateway()) as (here, there):
            kindcluster.redirect(here, there)
            result = walk(f"{here}/{PATH}")
    except (ClusterError, DemoError, ReleaseError, NotYet) as error:
        print(f"\nerror: {error}", file=sys.stderr)
        return 1
    print(f"\nwalk-result: {json.dumps({**result, 'seconds': round(time.monotonic() - started)})}")
    return 0


@contextmanager
def cluster() -> Iterator[None]:
    """Make a cluster. A shell deletes it and the images when this process ends in whatever way."""
    way = mode.current()
    released.provide(way)
    found = tools()
    kubeconfig = str(found.kubeconfig)
    deletion = (str(found.kind), "delete", "cluster", "--name", CLUSTER, "--kubeconfig", kubeconfig)
    clean = f"""
    cat > /dev/null
    {shlex.join(deletion)}
    rm -f {shlex.quote(kubeconfig)}
    docker image ls --quiet --filter 'reference={IMAGES}' | xargs -r docker image rm --force
    """
    with (
        log_path("walk").open("ab") as log,
        subprocess.Popen(
            ["sh", "-c", clean],
            stdin=subprocess.PIPE,  # closed by the kernel at the latest
            stdout=log,
            stderr=log,
            start_new_session=True,  # a terminal's Ctrl-C is not for it
        ),
    ):
        with lock("up"):
            kindcluster.create(way)
        yield


def walk(to: str) -> dict[str, Any]:
    """Release twice to `to`, install, upgrade, roll back and uninstall; return the numbers."""
    operator, kubectl = Kubectl(NAMESPACE), Kubectl("default")
    detector = Detector(kubectl, "gate")
    images = pictures.examples()

    screen.heading("1. Two releases")
    first, second = (release(version, to) for version in VERSIONS)
    is_refused(first, to)

    screen.heading("2. Installed from the registry")
    upgrade(first, to)
    runs(operator, first)
    kubectl.apply(DETECTOR)
    with screen.step("the detector is Ready"):
        ready_s = detector.wait_ready()
    before = pods(detector)
    expect_images(before, first, to)
    with forwarded(kubectl, "gate") as target:
        found = sum(
            pictures.found(image.objects, asyncio.run(pictures.detect(target, image))["detections"])
            for image in images
        )
        objects = sum(len(image.objects) for image in images)
        screen.fact(f"{found} of {objects} objects found")
        if found < FOUND_AT_LEAST * objects:
            raise WrongResult(f"only {found} of {objects} objects were found")

        with Load(target, [image.data for image in images]) as load:
            screen.heading("3. Upgraded, rolled back and uninstalled, under requests")
            upgrade(second, to)
            runs(operator, second)
            acts(detector, history=4)
            the_same(before, detector, "the upgrade")

            with screen.step("helm rollback"):
                helm("rollback", RELEASE, "1", "--wait", "--timeout", "10m")
            runs(operator, first)
            acts(detector, history=5)
            the_same(before, detector, "the roll-back")

            with screen.step("helm uninstall"):
                helm("uninstall", RELEASE, "--wait", "--timeout", "5m")
            if kubectl.find("customresourcedefinition", DETECTORS) is None:
                raise WrongResult("helm uninstall took the CustomResourceDefinition along")
            load.wait_for(load.answered + REQUESTS, within_s=120)
            the_same(before, detector, "the end of the operator")
            summary = load.summary()
    if summary.failed:
        raise WrongResult(f"of {summary.requests} requests failed: {dict(summary.failures)}")

    screen.heading("4. Deleted")
    with screen.step("kubectl delete yd/gate, with no operator there"):
        detector.delete()
    return {
        "images": first.images | second.images,
        "ready_s": round(ready_s, 1),
        "pods": len(before),
        "requests": summary.requests,
        "failed": summary.failed,
        "objects": objects,
        "objects_found": found,
    }


def release(version: str, to: str) -> Listing:
    """Release a version of what is checked out, with the files of it where nobody keeps them."""
    with tempfile.TemporaryDirectory() as folder:
        return making.make(version, to, (), Path(folder) / version)


def is_refused(listing: Listing, to: str) -> None:
    """Raise WrongResult where a version that is there can be released again."""
    try:
        release(listing.version, to)
    except Refused as refused:
        screen.fact(str(refused))
    else:
        raise WrongResult(f"{listing.version} was released twice")


def upgrade(listing: Listing, to: str) -> None:
    """Install or upgrade to a version, by nothing but its name in the registry."""
    source = [chart_reference(to, chart.NAME), "--version", listing.version, *plain(to)]
    helm_install(RELEASE, source, namespace=NAMESPACE, values=[], settings={})


def helm(*arguments: str) -> None:
    """Run helm on the release."""
    there = ("--kubeconfig", tools().kubeconfig, "--namespace", NAMESPACE)
    run([tools().helm, *arguments, *there], log="helm")


def runs(operator: Kubectl, listing: Listing) -> None:
    """Raise WrongResult unless the operator is that of a version, by digest."""
    name = f"operator:{listing.version}"
    wanted = f"{listing.registry}/{name}@{listing.images[name]}"
    found = operator.find("deployment", RELEASE)
    if found is None:
        raise WrongResult(f"there is no Deployment {RELEASE} in {NAMESPACE}")
    image = found["spec"]["template"]["spec"]["containers"][0]["image"]
    if image != wanted:
        raise WrongResult(f"the operator's image is {image}, not {wanted}")


def acts(detector: Detector, *, history: int) -> None:
    """Edit what changes no pod, and wait until the operator has looked at it."""
    detector.patch({"revisionHistory": history})
    with screen.step("the operator has acted on an edit"):
        eventually("the operator to act", detector.acted_on, within_s=120, hint=detector.hint())


def pods(detector: Detector) -> Pods:
    """Return the pods that a detector has."""
    return {
        pod["metadata"]["uid"]: (
            sum(each["restartCount"] for each in pod["status"].get("containerStatuses", ())),
            pod["spec"]["containers"][0]["image"],
        )
        for pod in detector.pods()
    }


def the_same(before: Pods, detector: Detector, event: str) -> None:
    """Raise WrongResult where a pod was replaced or restarted."""
    if (now := pods(detector)) != before:
        raise WrongResult(f"{event} changed the pods of {detector.name}: {before} became {now}")
    screen.fact(f"{len(before)} pods as before {event}")


def expect_images(found: Pods, listing: Listing, to: str) -> None:
    """Raise WrongResult unless all pods run the released image, by digest."""
    name = f"yoloserve:{listing.version}-cpu"
    wanted = f"{to}/{name}@{listing.images[name]}"
    if images := {image for _, image in found.values()} - {wanted}:
        raise WrongResult(f"pods run {', '.join(images)}, not {wanted}")


if __name__ == "__main__":
    sys.exit(main())
