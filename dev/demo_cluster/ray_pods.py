"""The pods of a revision on Ray, and what runs in them."""

from typing import Final

from demo_cluster.detector import Detector
from demo_cluster.errors import NotYet
from demo_cluster.kube import Kubectl

CLUSTER: Final = "yolofleet.io/ray-cluster"
REPLICAS: Final = """
import glob
for file in glob.glob("/proc/[0-9]*/cmdline"):
    if open(file, "rb").read().startswith(b"ray::ServeReplica:detector:"):
        print(file.split("/")[2])
"""
"""Prints the process ids of the replicas in a worker, in which there is no `ps`."""


def head(kubectl: Kubectl, revision: str) -> str:
    """Return the head that is there to stay. Raises NotYet while there is none."""
    chosen = f"{CLUSTER}={revision},{CLUSTER}-node=head,ray.io/node-type=head"
    there = [pod["metadata"] for pod in kubectl.list("pods", chosen)]
    names = [str(each["name"]) for each in there if "deletionTimestamp" not in each]
    if len(names) != 1:
        raise NotYet(f"heads: {names}")
    return names[0]


def workers(detector: Detector, revision: str) -> dict[str, str]:
    """Return the workers that are there to stay: name and uid."""
    there = [pod["metadata"] for pod in detector.pods(revision)]
    return {each["name"]: each["uid"] for each in there if "deletionTimestamp" not in each}


def replicas(detector: Detector, revision: str) -> set[tuple[str, str]]:
    """Return the replicas: worker and process id."""
    found = set()
    for worker in workers(detector, revision):
        program = ("--container=yoloserve", "--", "python", "-c", REPLICAS)
        pids = detector.kubectl.run("exec", worker, *program)
        found |= {(worker, pid) for pid in pids.split()}
    return found
