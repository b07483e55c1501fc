"""What a replica on Ray makes of the settings, without a Ray: the rest is in `tests/ray`."""

import json
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
REPLICA = """
import asyncio, sys, types
serve = types.SimpleNamespace(
    ingress=lambda: lambda replica: replica,
    deployment=lambda **_: lambda replica: types.SimpleNamespace(bind=lambda start: replica),
)
sys.modules["ray"] = ray = types.ModuleType("ray")
ray.serve = serve
from stub_engine.engine import start
from yoloserve.rayserve import Replica
asyncio.run(Replica(start).__serve_build_asgi_app__())
print(*(name for name in sys.modules if name.startswith("yoloserve.fronts.processes")))
"""


def test_fronts_that_are_asked_for_are_not_there_and_that_is_told(tmp_path: Path) -> None:
    told = {
        "PYTHONPATH": f"{ROOT / 'serving_image'}:{ROOT / 'dev'}",
        "YOLOSERVE_CACHE_DIR": str(tmp_path),
        "YOLOSERVE_FRONT_PROCESSES": "2",
    }
    ran = subprocess.run(
        [sys.executable, "-c", REPLICA],
        env=os.environ | told,
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    assert ran.stdout.strip() == ""
    lines = [json.loads(line) for line in ran.stderr.splitlines()]
    assert [line["asked"] for line in lines if line["message"] == "no front processes on Ray"] == [
        2
    ]
