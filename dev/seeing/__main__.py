"""Try releases on the local cluster: `python -m seeing OUT [CASE …]`.

Each leaves OUT/CASE.json; those that are there already, and were as they have to be, are not tried
again. Ends with a table, and with 1 where something was not as it has to be.
"""

import argparse
import json
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import cv2

import canaries
from cluster import images
from cluster.errors import ClusterError
from cluster.paths import REPOSITORY
from demo.dataset import HELD_BACK
from demo.pictures import draw
from demo_cluster import screen
from demo_cluster.detector import Detector, condition, told
from demo_cluster.errors import DemoError, NotYet, TookTooLong
from demo_cluster.installation import Installation, install
from demo_cluster.load import Load, Summary, wait_until_served
from demo_cluster.waiting import eventually
from seeing.cases import CASES, Case, Manifest

RATE: Final = 20.0  # requests a second, in all
PICTURES: Final = 400


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a release.

    end: released, called off, paused, or undecided when its time was over. exposed: the answers
    that were its own until then. wrong: in words; empty where all is as it has to be.
    """

    case: str
    end: str
    check: str
    seconds: float
    answers: int
    exposed: int
    failed: dict[str, int]
    p99_ms: float
    message: str
    checks: list[Any]
    wrong: str = ""


def main() -> int:
    """Try what was asked for; return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m seeing", description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("cases", nargs="*", metavar="CASE", help=" ".join(c.name for c in CASES))
    asked = parser.parse_args()
    chosen = [case for case in CASES if not asked.cases or case.name in asked.cases]
    if unknown := set(asked.cases) - {case.name for case in chosen}:
        parser.error(f"no such case: {', '.join(sorted(unknown))}")
    asked.out.mkdir(parents=True, exist_ok=True)
    try:
        outcomes = _all(chosen, asked.out)
    except (ClusterError, DemoError) as error:
        print(f"\nerror: {error}", file=sys.stderr)
        return 1
    screen.show(_table(outcomes))
    return int(any(outcome.wrong for outcome in outcomes))


def _all(chosen: list[Case], out: Path) -> list[Outcome]:
    there = {case.name: _there(out / f"{case.name}.json") for case in chosen}
    if all(there.values()):
        return [found for found in there.values() if found]
    installation = install(REPOSITORY / "tests" / "e2e" / "values.yaml")
    for name in canaries.CANARIES:
        (REPOSITORY / "build" / "canaries").mkdir(parents=True, exist_ok=True)
        canaries.make(name, REPOSITORY / "build" / "canaries")
    image = images.build_and_load_upon(images.TROUBLED)
    pictures = [_jpeg(index) for index in range(PICTURES)]
    outcomes = []
    for case in chosen:
        found = there[case.name]
        if not found:
            screen.heading(case.name)
            found = _try(installation, image, pictures, case)
            (out / f"{case.name}.json").write_text(json.dumps(asdict(found), indent=1))
            screen.fact(f"{found.end} {found.check}: {found.message}")
            screen.fact(found.wrong or "as it has to be")
        outcomes.append(found)
    return outcomes


def _there(file: Path) -> Outcome | None:
    try:
        found = Outcome(**json.loads(file.read_text()))
    except (FileNotFoundError, ValueError, TypeError):
        return None
    return None if found.wrong else found


def _jpeg(index: int) -> bytes:
    _, data = cv2.imencode(".jpg", draw(HELD_BACK, index).image)
    return bytes(data)


def _try(installation: Installation, image: str, pictures: list[bytes], case: Case) -> Outcome:
    kubectl = installation.kubectl("default")
    detector = Detector(kubectl, f"seen-{case.name}")
    host = f"{detector.name}.example.com"
    target = installation.target(host)
    if detector.exists() or detector.pods():
        detector.delete()
    kubectl.apply(_manifest(detector.name, host, image, case))
    try:
        detector.wait_ready()
        wait_until_served(target, pictures, within_s=120)
        stable = detector.raw()["status"]["stable"]["revision"]
        with Load(target, pictures, per_second=RATE) as load:
            started = time.monotonic()
            detector.patch(case.change)
            end, raw = _ended(detector, stable, case, load)
            took = time.monotonic() - started
            summary = load.summary()
    finally:
        detector.leave()
    return _outcome(case, end, raw, stable, summary, took)


def _manifest(name: str, host: str, image: str, case: Case) -> Manifest:
    return {
        "apiVersion": "yolofleet.io/v1alpha1",
        "kind": "YoloDetector",
        "metadata": {"name": name},
        "spec": {
            "model": {"uri": "demo://shapes"},
            "runtime": {"image": image},
            "inference": {"deadline": "10s"},
            "resources": {"requests": {"cpu": "50m", "memory": "192Mi"}},
            "replicas": 1,
            "traffic": {"hosts": [host], "gateways": ["istio-system/public"], "retries": 0},
            "rollout": {"strategy": "Canary", "steps": list(case.steps), "analysis": case.analysis},
        },
    }


def _ended(detector: Detector, stable: str, case: Case, load: Load) -> tuple[str, Manifest]:
    last: Manifest = {}

    def look() -> tuple[str, Manifest]:
        nonlocal last
        raw: Manifest = detector.acted_on()
        last = raw
        progress = condition(raw, "Progressing")
        if (progress["status"], progress["reason"]) == ("False", "AnalysisFailed"):
            return "called off", raw
        if progress["reason"] == "AwaitingApproval":
            return "paused", raw
        released = condition(raw, "Released").get("status") == "True"
        if released and raw["status"]["stable"]["revision"] != stable:
            return "released", raw
        raise NotYet(f"{told(progress)}; {told(condition(raw, 'Analysed'))}")

    try:
        with screen.step("judged", load):
            return eventually(
                "the release to end", look, within_s=case.within_s, every_s=1, hint=detector.hint()
            )
    except TookTooLong:
        return "undecided", last


def _outcome(
    case: Case, end: str, raw: Manifest, stable: str, summary: Summary, took: float
) -> Outcome:
    analysis: Manifest = raw["status"].get("analysis", {})
    checks = analysis.get("checks", [])
    failed = [check["name"] for check in checks if check.get("verdict") == "Fail"]
    check = (analysis.get("failed") or [{"check": ", ".join(failed)}])[-1]["check"]
    exposed = sum(count for name, count in summary.revisions.items() if name != stable)
    answers = sum(summary.revisions.values())
    # What the release itself makes fail reaches whoever it answers; nothing else may fail.
    own = case.failed == frozenset({"errors"}) and exposed
    expected = "called off" if case.failed else "released"
    faults = [
        f"{end}, not {expected}" if end != expected else "",
        f"by {check}" if case.failed and check not in case.failed else "",
        f"{exposed / max(answers, 1):.2%} exposed" if exposed > case.most * answers else "",
        f"{dict(summary.failures)} failed" if summary.failures and not own else "",
    ]
    return Outcome(
        case=case.name,
        end=end,
        check=check if case.failed else "",
        seconds=round(took, 1),
        answers=answers,
        exposed=exposed,
        failed=dict(summary.failures),
        p99_ms=round(summary.p99_ms, 1),
        message=condition(raw, "Progressing").get("message", ""),
        checks=checks,
        wrong="; ".join(filter(None, faults)),
    )


def _table(outcomes: list[Outcome]) -> list[str]:
    head = ["release", "end", "by", "s", "answers", "its own", "failed", "p99 ms", "wrong"]
    return screen.table(
        head,
        [
            [
                each.case,
                each.end,
                each.check,
                f"{each.seconds:.0f}",
                str(each.answers),
                str(each.exposed),
                str(sum(each.failed.values())),
                f"{each.p99_ms:.0f}",
                each.wrong,
            ]
            for each in outcomes
        ],
    )


if __name__ == "__main__":
    sys.exit(main())
