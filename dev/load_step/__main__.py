"""`python -m load_step`: what callers see while the load of one replica becomes that of three.

On the local cluster, with the real HorizontalPodAutoscaler controller and the stub engine, whose
service time is a sleep: two cores carry it. The operator feeds the autoscaler, or KEDA does, out of
a real Prometheus. Then the load swings; then it is that of one replica again, but what is measured
is lost: nobody is to go before it is back. Prints a row each ten seconds, then
`load-step-result: {json}`; 1 where an aim is missed.
"""

import argparse
import itertools
import json
import random
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import asdict, dataclass
from typing import Final

import cv2

from cluster import images, keda, prometheus
from cluster.errors import ClusterError
from cluster.kindcluster import NODE
from cluster.steps import run as command
from cluster.up import up
from demo.dataset import HELD_BACK
from demo.pictures import draw
from demo_cluster import screen
from demo_cluster.detector import Detector
from demo_cluster.errors import DemoError
from demo_cluster.installation import Installation, install
from demo_cluster.kube import Kubectl, Manifest
from demo_cluster.load import Load, Target, wait_until_served

NAME: Final = "step"
SERVICE_MS: Final = 100
REPLICA: Final = 1000 / SERVICE_MS
"""What a replica answers a second."""

LOAD: Final = 70
MOST: Final = 6
CALLERS: Final = 64  # so many wait at once at most: requests come whether others were answered
WINDOW_S: Final = 10.0
SERVED_IN_S: Final = 60.0
REFUSED: Final = 0.01


@dataclass(frozen=True, slots=True)
class Window:
    """Ten seconds. refused: of the requests that ended in it."""

    at_s: float
    per_second: float
    requests: int
    refused: int
    replicas: int

    @property
    def share(self) -> float:
        """Which part was refused."""
        return self.refused / self.requests if self.requests else 0.0


@dataclass(frozen=True, slots=True)
class Asked:
    """Who feeds the autoscaler, and how many seconds each part lasts."""

    provider: str
    before: float
    after: float
    noise: float
    lost: float
    back: float


@dataclass(frozen=True, slots=True)
class Result:
    """One run.

    served_s: from the step until no window has as much as a hundredth refused. refused_after: of
    what was asked later than SERVED_IN_S. turns: how often the number of replicas went back.
    held: how many there were when the metric was lost; fewest_lost: until it was back; fewest_back:
    after that, so that it is known that they would have gone.
    """

    provider: str
    served_s: float
    refused_after: float
    most_replicas: int
    turns: int
    held: int
    fewest_lost: int
    fewest_back: int
    asked: Asked

    def missed(self) -> Iterator[str]:
        """Say which aims are missed."""
        if self.served_s > SERVED_IN_S:
            yield f"callers were refused for {self.served_s:.0f} s"
        if self.turns > 1:
            yield f"the number of replicas turned {self.turns} times"
        if self.fewest_lost < self.held:
            yield f"without its metric it went from {self.held} to {self.fewest_lost}"
        if self.asked.back and self.fewest_back >= self.held:
            yield f"with its metric back, and no load, it stayed at {self.held}: nothing is proved"


def main() -> int:
    """Run it; return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m load_step", description=__doc__)
    parser.add_argument("--provider", choices=sorted(LOSSES), default="builtin")
    parser.add_argument("--before", type=float, default=60.0, help="seconds before the step")
    parser.add_argument("--after", type=float, default=180.0, help="seconds at three times as much")
    parser.add_argument("--noise", type=float, default=600.0, help="seconds at that, give or take")
    parser.add_argument("--lost", type=float, default=660.0, help="seconds without a metric")
    parser.add_argument("--back", type=float, default=480.0, help="seconds with it again")
    try:
        result = run(Asked(**vars(parser.parse_args())))
    except (ClusterError, DemoError) as error:
        print(f"\nerror: {error}", file=sys.stderr)
        return 1
    print(f"load-step-result: {json.dumps(asdict(result))}")
    missed = list(result.missed())
    screen.show(missed)
    return int(bool(missed))


def run(asked: Asked) -> Result:
    """Take the step; return what became of it."""
    installation = _installed(asked.provider)
    name = f"{NAME}-{asked.provider}"
    detector = Detector(installation.kubectl("default"), name)
    target, picture = installation.target(_host(name)), _jpeg()
    swing = random.Random(0)
    image = images.build_and_load_upon(images.STUB)

    def windows(rates: Iterator[float], lasts_s: float) -> list[Window]:
        return list(_windows(detector, target, picture, rates, lasts_s))

    with _served(detector, image, asked.provider):
        wait_until_served(target, [picture], within_s=120)
        screen.show(["   seconds  per second  requests  refused  replicas"])
        little = itertools.repeat(REPLICA * LOAD / 100)
        windows(little, asked.before)
        step = windows(itertools.repeat(3 * REPLICA), asked.after)
        noise = windows(
            (3 * REPLICA * swing.uniform(0.8, 1.2) for _ in itertools.count()), asked.noise
        )
        with LOSSES[asked.provider]():
            screen.show(["the metric is lost"])
            lost = windows(little, asked.lost)
        screen.show(["the metric is back"])
        back = windows(little, asked.back)
    late = [window for window in step if window.at_s > SERVED_IN_S]
    requests = sum(window.requests for window in late)
    held = (step + noise)[-1].replicas
    return Result(
        provider=asked.provider,
        served_s=max((window.at_s for window in step if window.share >= REFUSED), default=0.0),
        refused_after=round(sum(window.refused for window in late) / max(1, requests), 4),
        most_replicas=max(window.replicas for window in step + noise),
        turns=turns([window.replicas for window in step + noise]),
        held=held,
        fewest_lost=min((window.replicas for window in lost), default=held),
        fewest_back=min((window.replicas for window in back), default=held),
        asked=asked,
    )


def _installed(provider: str) -> Installation:
    up(metrics=True)  # without it the autoscaler of a floor goes up alone
    if provider == "keda":
        prometheus.install()
        keda.install()
    return install()


@contextmanager
def _deaf() -> Iterator[None]:
    """Let no pod reach what another tells of itself: to the operator they all are silent.

    As a NetworkPolicy would, which the network of a node that is built here does not know.
    """
    rule = ("FORWARD", "-p", "tcp", "--dport", "8081", "-j", "DROP")

    def iptables(what: str) -> None:
        command(["docker", "exec", NODE, "iptables", "-w", "60", what, *rule], log="kind")

    iptables("-I")
    try:
        yield
    finally:
        iptables("-D")


@contextmanager
def _no_prometheus() -> Iterator[None]:
    kubectl = Kubectl(prometheus.NAMESPACE)
    kubectl.run("scale", "deployment/prometheus", "--replicas=0")
    try:
        yield
    finally:
        kubectl.run("scale", "deployment/prometheus", "--replicas=1")


LOSSES: Final[dict[str, Callable[[], AbstractContextManager[None]]]] = {
    "builtin": _deaf,
    "keda": _no_prometheus,
}
"""How a metric is lost, by who feeds the autoscaler."""


def turns(replicas: Sequence[int]) -> int:
    """Count how often a number that went one way went the other."""
    moves = [later > now for now, later in itertools.pairwise(replicas) if later != now]
    return sum(now != later for now, later in itertools.pairwise(moves))


def _windows(
    detector: Detector, target: Target, picture: bytes, rates: Iterator[float], lasts_s: float
) -> Iterator[Window]:
    began, at_s = time.monotonic(), 0
    while at_s < lasts_s:
        rate = next(rates)
        with Load(target, [picture], callers=CALLERS, per_second=rate) as load:
            time.sleep(WINDOW_S)
            found = load.summary()
        stable = detector.raw()["status"]["stable"]
        at_s = round(time.monotonic() - began)  # what is between two windows takes its time, too
        window = Window(at_s, rate, found.requests, found.failed, stable["ready"])
        screen.show(
            [
                f"{at_s:>8} s  {rate:10.1f}  {found.requests:8}  {found.failed:7}  "
                f"{window.replicas:8}  {dict(found.failures) or ''}"
            ]
        )
        yield window


@contextmanager
def _served(detector: Detector, image: str, provider: str) -> Iterator[None]:
    if detector.exists() or detector.pods():
        detector.delete()
    detector.kubectl.apply(_manifest(detector.name, image, provider))
    try:
        detector.wait_ready()
        yield
    finally:
        detector.leave()


def _host(name: str) -> str:
    return f"{name}.example.com"


def _manifest(name: str, image: str, provider: str) -> Manifest:
    scaling = {"minReplicas": 1, "maxReplicas": MOST, "load": LOAD, "provider": provider}
    env = [{"name": "YOLOSTUB_SERVICE_MS", "value": str(SERVICE_MS)}]
    return {
        "apiVersion": "yolofleet.io/v1alpha1",
        "kind": "YoloDetector",
        "metadata": {"name": name},
        "spec": {
            "model": {"uri": "demo://shapes"},
            "runtime": {"image": image},
            "inference": {"deadline": "2s"},
            "resources": {"requests": {"cpu": "50m", "memory": "96Mi"}},
            "traffic": {"hosts": [_host(name)], "gateways": ["istio-system/public"], "retries": 0},
            "autoscaling": scaling,
            "podTemplate": {"spec": {"containers": [{"name": "yoloserve", "env": env}]}},
        },
    }


def _jpeg() -> bytes:
    """Return a small picture: the client has to cost little."""
    _, data = cv2.imencode(".jpg", cv2.resize(draw(HELD_BACK, 0).image, (160, 120)))
    return bytes(data)


if __name__ == "__main__":
    sys.exit(main())
