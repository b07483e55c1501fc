"""A detector goes over to Ray and back while requests keep coming: `python3 -m demo_cluster.ray`.

A real KubeRay makes the Ray clusters. All requests come at one rate: half of what the slower of the
two engines answers alone, so that either of them can be the one that answers all. The last line is
`demo-ray-result: {json}`.
"""

import json
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from typing import Any, Final

import yaml

from cluster import images as built
from cluster import kuberay
from cluster.errors import ClusterError
from cluster.paths import REPOSITORY
from cluster.up import up
from demo_cluster import pictures, release, screen
from demo_cluster.detector import Detector
from demo_cluster.errors import DemoError, WrongResult
from demo_cluster.installation import Installation, install
from demo_cluster.kube import Manifest
from demo_cluster.load import Load, Summary, Target, wait_until_served

EXAMPLE: Final = REPOSITORY / "examples" / "ray-canary.yaml"
NAME: Final = "yard"
HOST: Final = "yard.localhost"
WEIGHT: Final = 10
REQUESTS: Final = 600
FEWER: Final = 200
WARM_UP: Final = 50
PATIENCE_S: Final = 600.0
"""A Ray cluster starts within this, on two busy cores too."""


@dataclass(frozen=True, slots=True)
class Rate:
    """What each engine answers a second when it is asked without a pause and nobody else is."""

    deployment: float
    ray: float

    @property
    def asked(self) -> float:
        """Half of what the slower one carries: either has to carry all of it."""
        return min(self.deployment, self.ray) / 2


@dataclass
class Phases:
    """What became of the requests in each part of the story."""

    load: Load
    by_name: dict[str, Summary] = field(default_factory=dict)

    @contextmanager
    def during(self, name: str) -> Iterator[None]:
        """Count what ends meanwhile, and the next requests: who was on the way ends then."""
        mark = self.load.answered
        with screen.step(name, self.load):
            yield
            self.load.wait_for(FEWER, within_s=PATIENCE_S)
        self.by_name[name] = self.load.summary(since=mark)

    def table(self) -> list[str]:
        """Return a row for each part."""
        rows = [
            [name, str(each.requests), str(each.failed), f"{each.p50_ms:.0f}", f"{each.p99_ms:.0f}"]
            for name, each in self.by_name.items()
        ]
        return screen.table(["meanwhile", "requests", "failed", "p50 ms", "p99 ms"], rows)


@dataclass(frozen=True, slots=True)
class Result:
    """The numbers of one run. failed: by part of the story, of how many requests there."""

    deployment_per_second: float
    ray_per_second: float
    asked_per_second: float
    canary_share: float
    canary_s: float
    promote_s: float
    roll_back_s: float
    requests: int
    failed: int
    failed_in: Mapping[str, str]
    restarts: int


def main() -> int:
    """Run it; return its exit status."""
    try:
        screen.heading("1. A cluster with YoloFleet and KubeRay")
        result = tell(installed())
    except (ClusterError, DemoError) as error:
        print(f"\nerror: {error}", file=sys.stderr)
        print("\nThe cluster is left as it is, to be looked at.", file=sys.stderr)
        return 1
    print(f"\ndemo-ray-result: {json.dumps(asdict(result))}")
    return 1 if result.failed or result.restarts else 0


def installed() -> Installation:
    """Return the cluster with KubeRay, and with YoloFleet."""
    up(metrics=False)
    kuberay.install()  # first: the chart gives rights to what is there
    return install(ray=built.build_and_load_ray())


def example() -> tuple[Manifest, Manifest]:
    """Return the detector of the example, on a Deployment, and its canary on Ray."""
    stated: Manifest = yaml.safe_load(EXAMPLE.read_text())
    return stated, stated["spec"].pop("canary")


def tell(installation: Installation) -> Result:
    """Tell everything after the installation. Raises DemoError where it cannot go on."""
    detector = Detector(installation.kubectl("default"), NAME)
    target = installation.target(HOST)
    data = [each.data for each in pictures.examples()]
    stated, canary = example()

    screen.heading("2. What each engine carries, alone")
    detector.delete()
    detector.kubectl.apply(stated)
    with screen.step("Ready on a Deployment"):
        detector.wait_ready()
        wait_until_served(target, data[:1], within_s=120)
    rate = measured(detector, target, data, canary)
    screen.fact(
        f"The Deployment answers {rate.deployment:.0f} a second, Ray {rate.ray:.0f}. From now on"
        f" {rate.asked:.0f} a second are asked."
    )

    screen.heading("3. From the Deployment to Ray, and back; requests keep coming")
    on_deployments = str(detector.raw()["status"]["stable"]["revision"])
    former = detector.raw()["spec"]["runtime"]
    with Load(target, data, per_second=rate.asked) as load:
        phases = Phases(load)
        started = time.monotonic()
        screen.command(release.edit(detector, {"canary": canary}))
        with phases.during("a canary on Ray starts"):
            detector.patch({"canary": canary})
            on_ray = str(detector.wait_weight(WEIGHT, within_s=PATIENCE_S)["revision"])
            canary_s = time.monotonic() - started
        with phases.during(f"{WEIGHT} % of the requests are its"):
            mark = load.answered
            load.wait_for(REQUESTS, within_s=PATIENCE_S)
            share = release.check_share(load.summary(since=mark), on_ray, WEIGHT)
        change = release.promoted(detector.raw()["spec"])
        with phases.during("it is promoted"):
            promote_s = released(detector, change, on_ray, load)
        with phases.during("the Deployment goes, Ray answers all"):
            detector.wait_settled(within_s=PATIENCE_S)
            load.wait_for(REQUESTS, within_s=PATIENCE_S)
        back = {"runtime": release.difference(detector.raw()["spec"]["runtime"], former)}
        with phases.during("back to a Deployment"):
            roll_back_s = released(detector, back, on_deployments, load)
        with phases.during("Ray goes, the Deployment answers all"):
            detector.wait_settled(within_s=PATIENCE_S)
        whole = load.summary()
    screen.show(phases.table())
    for kind, count in whole.failures.items():
        screen.fact(f"{count} × {kind}")
    return Result(
        deployment_per_second=round(rate.deployment, 1),
        ray_per_second=round(rate.ray, 1),
        asked_per_second=round(rate.asked, 1),
        canary_share=round(share, 3),
        canary_s=round(canary_s, 1),
        promote_s=round(promote_s, 1),
        roll_back_s=round(roll_back_s, 1),
        requests=whole.requests,
        failed=whole.failed,
        failed_in={n: f"{each.failed}/{each.requests}" for n, each in phases.by_name.items()},
        restarts=detector.restarts(),
    )


def measured(
    detector: Detector, target: Target, data: list[bytes], canary: Mapping[str, Any]
) -> Rate:
    """Ask the Deployment, then a canary on Ray that has no share, and take it away again."""
    with screen.step("the Deployment, asked without a pause"):
        deployment = capacity(target, data)
    detector.patch({"canary": {**canary, "weight": 0}})
    with screen.step("a canary on Ray, without a share"):
        detector.wait_for("CanaryHealthy", within_s=PATIENCE_S)
    [(header, value)] = canary["match"][0]["headers"].items()
    named = {header: value["exact"]}
    with screen.step("Ray, asked without a pause"):
        wait_until_served(target, data[:1], within_s=120)
        ray = capacity(target, data, named)
    detector.patch({"canary": None})
    with screen.step("its Ray cluster goes"):
        detector.wait_settled(within_s=PATIENCE_S)
    return Rate(deployment, ray)


def capacity(target: Target, data: list[bytes], headers: Mapping[str, str] | None = None) -> float:
    """Return how many requests a second end well when a few callers ask without a pause."""
    with Load(target, data, headers=headers) as load:
        load.wait_for(WARM_UP, within_s=PATIENCE_S)
        began, mark = time.monotonic(), load.answered
        load.wait_for(REQUESTS, within_s=PATIENCE_S)
        took, summary = time.monotonic() - began, load.summary(since=mark)
    if summary.failed:
        raise WrongResult(f"of {summary.requests} requests {dict(summary.failures)}")
    return summary.requests / took


def released(detector: Detector, change: Mapping[str, Any], to: str, load: Load) -> float:
    """Make a change by which revision `to` answers all; return the seconds until it does."""
    screen.command(release.edit(detector, change))
    began = time.monotonic()
    detector.patch(dict(change))
    detector.wait_stable(to, within_s=PATIENCE_S)
    took = time.monotonic() - began
    load.wait_answered_by(to, within_s=PATIENCE_S)
    return took


if __name__ == "__main__":
    sys.exit(main())
