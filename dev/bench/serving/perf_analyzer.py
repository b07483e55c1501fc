"""Triton's perf_analyzer on yoloserve's Open Inference Protocol: does it work, and how fast."""

import base64
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from functools import partial
from pathlib import Path
from typing import Final

from bench.serving.assets import Assets
from bench.serving.measure import Numbers
from bench.serving.servers import Cores, running, yoloserve

# The last release whose wheel has the program itself; it is linked to CUDA's runtime and to libb64.
PACKAGES: Final = ("tritonclient==2.41.0", "nvidia-cuda-runtime-cu12==12.3.101")
LIBRARY: Final = "libb64-0d"


def measure(assets: Assets, cores: Cores, seconds: float) -> Numbers:
    """Ask with 4 and 16 callers."""
    try:
        program, libraries = _installed(assets.folder / "perf_analyzer")
    except (OSError, subprocess.CalledProcessError) as error:
        print(f"no perf_analyzer here: {error}", file=sys.stderr)
        return {}
    found: Numbers = {}
    with (
        running(yoloserve("yoloserve", assets), assets, cores) as target,
        tempfile.TemporaryDirectory() as folder,
    ):
        data, table = Path(folder) / "data.json", Path(folder) / "table.csv"
        encoded = [_element(path.read_bytes()) for path in assets.pictures]
        data.write_text(json.dumps({"data": [{"image": {"b64": each}} for each in encoded]}))
        for callers in (4, 16):
            subprocess.run(
                [
                    *(str(program), "-m", "yolov8n"),
                    *("-i", "http", "-u", f"127.0.0.1:{target.port}"),
                    *("--concurrency-range", str(callers), "--percentile", "99"),
                    *("--input-data", str(data), "--shape", "image:1", "-f", str(table)),
                    *("-p", str(int(seconds * 1000)), "-r", "3", "-s", "999"),
                ],
                env={**os.environ, "LD_LIBRARY_PATH": os.pathsep.join(map(str, libraries))},
                check=True,
                stdout=subprocess.DEVNULL,
                preexec_fn=partial(os.sched_setaffinity, 0, cores.client),
            )
            names, numbers = (line.split(",") for line in table.read_text().splitlines()[:2])
            told = dict(zip(names, numbers, strict=False))
            found[f"perf_analyzer_{callers}"] = float(told["Inferences/Second"])
            found[f"perf_analyzer_{callers}_p99_ms"] = float(told["p99 latency"]) / 1000
    return found


def _element(picture: bytes) -> str:
    """Write a BYTES element as it goes over the wire, length first: the program sends it as is."""
    return base64.b64encode(len(picture).to_bytes(4, "little") + picture).decode()


def _installed(folder: Path) -> tuple[Path, list[Path]]:
    """Put the program and its libraries into `folder`, once."""
    program = folder / "bin" / "perf_analyzer"
    libraries = [
        folder / "nvidia" / "cuda_runtime" / "lib",
        folder / "usr" / "lib" / f"{platform.machine()}-linux-gnu",
    ]
    if not all(path.exists() for path in (program, *libraries)):
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        uv = Path(sys.executable).with_name("uv")
        install: list[str | Path] = [
            uv,
            "pip",
            "install",
            "--quiet",
            "--python",
            sys.executable,
            "--no-deps",
        ]
        subprocess.run([*install, "--target", folder, *PACKAGES], check=True)
        subprocess.run(
            ["apt-get", "download", LIBRARY], cwd=folder, check=True, capture_output=True
        )
        (archive,) = folder.glob("*.deb")
        subprocess.run(["dpkg", "-x", archive, folder], check=True)
        program.chmod(0o755)
    return program, libraries
