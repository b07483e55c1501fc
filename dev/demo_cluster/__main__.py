"""Tell the story of one detector: `python3 -m demo_cluster`."""

import asyncio
import json
import sys
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from cluster import prometheus
from cluster.errors import ClusterError
from cluster.paths import REPOSITORY, tools
from demo_cluster import judged, pictures, release, screen
from demo_cluster.detector import Detector
from demo_cluster.errors import DemoError, NotYet, WrongResult
from demo_cluster.installation import Installation, install
from demo_cluster.load import Load, Summary, Target, wait_until_served
from demo_cluster.pictures import Picture
from demo_cluster.waiting import eventually

NAME: Final = "gate"
HOST: Final = "gate.localhost"  # every browser takes *.localhost for this machine
STABLE: Final = REPOSITORY / "examples" / "yolodetector.yaml"
CANARY: Final = REPOSITORY / "examples" / "canary.yaml"
JUDGED: Final = REPOSITORY / "examples" / "judged.yaml"
JUDGED_NAME: Final = "lane"
JUDGED_HOST: Final = "lane.localhost"
OUT: Final = REPOSITORY / "demo-out"

CANARY_WEIGHT: Final = 10
REQUESTS: Final = 2000
FEWER_REQUESTS: Final = 300
FOUND_AT_LEAST: Final = 0.7  # of the objects in the example pictures, half of which are hard
SHOWN: Final = ("shapes-1.jpg", "shapes-3.jpg")  # whose detections are printed one by one


@dataclass(frozen=True, slots=True)
class Result:
    """The numbers of one run; printed as `demo-result: {json}`."""

    requests: int
    failed: int
    restarts: int
    canary_share: float
    canary_weight: int
    p50_ms: float
    p99_ms: float
    ready_s: float
    promote_s: float
    rollback_s: float
    called_off_s: float
    exposed: int
    objects: int
    objects_found: int
    seconds: float


def main() -> int:
    """Run the demo; return its exit status."""
    started = time.monotonic()
    try:
        screen.heading("1. A cluster with YoloFleet")
        installation = install()
        result = tell(installation, started)
    except (ClusterError, DemoError) as error:
        print(f"\nerror: {error}", file=sys.stderr)
        print(
            "\nThe cluster is left as it is, to be looked at. `make demo` goes on from there;"
            " `make demo-down` deletes it.",
            file=sys.stderr,
        )
        return 1
    except KeyboardInterrupt:
        print("\nInterrupted. `make demo` goes on; `make demo-down` deletes the cluster.")
        return 130
    closing_words()
    print(f"\ndemo-result: {json.dumps(asdict(result))}")
    return 0


def tell(installation: Installation, started: float) -> Result:
    """Tell everything after the installation; return the numbers."""
    detector = Detector(installation.kubectl("default"), NAME)
    target = installation.target(HOST)
    images = pictures.examples()
    screen.heading("2. A detector")
    ready_s = make_detector(detector, STABLE, target, images[0])
    objects, objects_found = show_detections(target, images)

    screen.heading("4. A better model, first for a tenth of the requests")
    screen.command(f"kubectl apply -f {CANARY.relative_to(REPOSITORY)}")
    before = release.model_of(detector)
    with screen.step("the canary is ready and has its share"):
        canary = release.start_canary(detector, CANARY, CANARY_WEIGHT)
        wait_for_canary_header(target, images[0], canary)
    with Load(target, [image.data for image in images]) as load:
        with screen.step(f"{REQUESTS:,} requests through the ingress", load):
            load.wait_for(REQUESTS, within_s=300)
        split = load.summary()
        show_split(split.revisions)
        share = release.check_share(split, canary, CANARY_WEIGHT)
        screen.fact(f"The canary answered {share:.1%}; its weight is {CANARY_WEIGHT} %.")

        screen.heading("5. Half of the requests, all of them, and back; requests keep coming")
        screen.command(release.edit(detector, {"canary": {"weight": 50}}))
        with screen.step("half of the requests go to the canary", load):
            release.shift(detector, 50)
        mark = load.answered
        load.wait_for(FEWER_REQUESTS, within_s=120)
        show_split(load.summary(since=mark).revisions)

        screen.command(release.edit(detector, release.promoted(detector.raw()["spec"])))
        with screen.step("the canary's revision is the stable one", load):
            promotion = release.promote(detector)
        if not promotion.kept <= promotion.after:
            raise WrongResult("a pod of the canary was replaced by its promotion")
        load.wait_for(FEWER_REQUESTS, within_s=120)
        screen.fact(
            f"All traffic moved in {promotion.seconds:.1f} s. The {len(promotion.kept)} pod(s) of"
            f" the canary still run: {canary} became the stable revision without a restart."
        )

        change = release.rolled_back(detector.raw()["spec"], before)
        screen.command(release.edit(detector, change))
        with screen.step("rolled back", load):
            rollback_s = release.roll_back(detector, before)
        load.wait_for(FEWER_REQUESTS, within_s=120)
        summary = load.summary()
    restarts = detector.restarts()

    show_cost(detector, summary, restarts)
    called_off = judge(installation, [image.data for image in images])
    return Result(
        requests=summary.requests,
        failed=summary.failed,
        restarts=restarts,
        canary_share=round(share, 4),
        canary_weight=CANARY_WEIGHT,
        p50_ms=round(summary.p50_ms, 1),
        p99_ms=round(summary.p99_ms, 1),
        ready_s=round(ready_s, 1),
        promote_s=round(promotion.seconds, 1),
        rollback_s=round(rollback_s, 1),
        called_off_s=round(called_off.seconds, 1),
        exposed=called_off.exposed,
        objects=objects,
        objects_found=objects_found,
        seconds=round(time.monotonic() - started),
    )


def show_cost(detector: Detector, summary: Summary, restarts: int) -> None:
    """Print what became of all requests. Raises WrongResult unless nothing failed or restarted."""
    screen.heading("6. What it cost")
    screen.show(
        screen.table(
            ["requests", "failed", "pod restarts", "p50 ms", "p99 ms"],
            [
                [
                    str(summary.requests),
                    str(summary.failed),
                    str(restarts),
                    f"{summary.p50_ms:.1f}",
                    f"{summary.p99_ms:.1f}",
                ]
            ],
        )
    )
    for kind, count in summary.failures.items():
        screen.fact(f"{count} × {kind}")
    if summary.failed or restarts:
        raise WrongResult(
            f"{summary.failed} requests failed and {restarts} containers restarted: both must be 0."
            f" {detector.hint()}"
        )


def judge(installation: Installation, images: list[bytes]) -> judged.CalledOff:
    """Release a revision that sees nothing, under load; show how it is called off by itself."""
    screen.heading("7. A release that sees nothing is called off by itself")
    detector = Detector(installation.kubectl("default"), JUDGED_NAME)
    target = installation.target(JUDGED_HOST)
    key = judged.make_frames_key(detector)
    make_detector(detector, JUDGED, target, pictures.examples()[0])
    with Load(target, images) as load:
        screen.command(release.edit(detector, judged.BLIND))
        with screen.step("called off", load):
            called_off = judged.call_off(detector, load)
    screen.show(detector.kubectl.run("get", "yolodetectors", JUDGED_NAME).splitlines())
    screen.fact(called_off.message)
    OUT.mkdir(exist_ok=True)
    file = OUT / "disagreement.jpg"
    file.write_bytes(judged.disagreement(detector, key))
    screen.fact(f"What the two see, side by side, where they differ most: {file}")
    screen.fact(
        f"It answered {called_off.exposed} of {called_off.answers} requests meanwhile: it was shown"
        " copies, and judged by those."
    )
    if called_off.exposed:
        raise WrongResult(f"{called_off.revision} answered requests before it was judged")
    return called_off


def make_detector(detector: Detector, example: Path, target: Target, image: Picture) -> float:
    """Apply the example from nothing; return the seconds until it was Ready."""
    if detector.exists() or detector.pods():
        with screen.step("delete what an earlier run left"):
            detector.delete()
    screen.command(f"kubectl apply -f {example.relative_to(REPOSITORY)}")
    applied = time.monotonic()
    detector.kubectl.apply(example)
    with screen.step("Ready"):
        detector.wait_ready()
    ready_s = time.monotonic() - applied
    with screen.step("the ingress knows it"):
        wait_until_served(
            target,
            [image.data],
            within_s=120,
            hint="See: kubectl -n istio-system logs deployment/istio-ingressgateway",
        )
    screen.show(detector.kubectl.run("get", "yolodetectors", detector.name).splitlines())
    return ready_s


def show_detections(target: Target, images: list[Picture]) -> tuple[int, int]:
    """Post every picture; return how many objects are in them, and how many were found."""
    screen.heading("3. What is in these pictures?")
    rows, objects, found = [], 0, 0
    for image in images:
        detections = asyncio.run(pictures.detect(target, image))["detections"]
        objects += len(image.objects)
        found += pictures.found(image.objects, detections)
        if image.name in SHOWN:
            rows += [_row(image, detection) for detection in detections]
    screen.show(screen.table(["picture", "object", "confidence", "x1", "y1", "x2", "y2"], rows))
    screen.fact(f"In all {len(images)} pictures: {found} of {objects} objects found.")
    if found < FOUND_AT_LEAST * objects:
        raise WrongResult(f"only {found} of {objects} objects were found")
    OUT.mkdir(exist_ok=True)
    file = OUT / "detections.jpg"
    file.write_bytes(asyncio.run(pictures.annotated(target, images[0])))
    screen.fact(f"{images[0].name} with its boxes drawn: {file}")
    return objects, found


def _row(image: Picture, detection: Mapping[str, Any]) -> list[str]:
    box = [f"{detection['box'][corner]:.0f}" for corner in ("x1", "y1", "x2", "y2")]
    return [image.name, detection["name"], f"{detection['confidence']:.2f}", *box]


def wait_for_canary_header(target: Target, image: Picture, canary: str) -> None:
    """Wait until the router sends `x-canary: always` to the canary: it has the new routes."""

    def look() -> None:
        answer = asyncio.run(pictures.detect(target, image, {"x-canary": "always"}))
        if answer["model"]["revision"] != canary:
            raise NotYet(f"{answer['model']['revision']} answered")

    eventually("the canary to answer requests with its header", look, within_s=120)


def show_split(revisions: Mapping[str, int]) -> None:
    """Print how many requests each revision answered, as the answers themselves say."""
    total = sum(revisions.values())
    rows = [
        [revision, str(count), f"{100 * count / total:.1f}"]
        for revision, count in sorted(revisions.items(), key=lambda item: -item[1])
    ]
    screen.show(screen.table(["answered by", "requests", "%"], rows))


def closing_words() -> None:
    """Say what a person can do next."""
    found, seen = tools(), prometheus.there()
    url = found.ingress_url.replace("127.0.0.1", HOST)
    screen.heading("Now try it yourself")
    screen.show(
        [
            f"{url}/          drop a picture, or use your webcam",
            f"{url}/docs      the HTTP API",
            f"{url}/metrics   what Prometheus reads",
            *([f"{prometheus.url()}/api/v1/query?query=yoloserve_load_ratio"] if seen else []),
            "",
            f"export KUBECONFIG={found.kubeconfig} PATH={found.kubectl.parent}:$PATH",
            "kubectl get yd",
            f"kubectl describe yd {NAME}",
            f"kubectl get yd {JUDGED_NAME} -o yaml    what was seen of the release called off",
            "kubectl explain yd.spec.canary",
            f"kubectl apply -f {CANARY.relative_to(REPOSITORY)}",
            f"curl -H 'Host: {HOST}' -H 'Content-Type: image/jpeg' --data-binary"
            f" @examples/images/shapes-1.jpg {found.ingress_url}/v1/detect",
            "",
            "make demo-down    deletes the cluster; what was downloaded and built stays cached",
        ]
    )


if __name__ == "__main__":
    sys.exit(main())
