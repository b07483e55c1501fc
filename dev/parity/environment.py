"""The environment of the public package, made once and kept under ~/.cache/yolofleet/parity."""

import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
CACHE = Path.home() / ".cache" / "yolofleet" / "parity"
REQUIREMENTS, PROJECT = HERE / "requirements.txt", ROOT / "pyproject.toml"
EXTRAS = "server", "openvino", "onnxruntime", "torch", "int8"


def folder() -> Path:
    """Return where the environment is, and what it has trained."""
    digest = hashlib.sha256(REQUIREMENTS.read_bytes()).hexdigest()[:12]
    return CACHE / f"{digest}-{sys.version_info[0]}.{sys.version_info[1]}"


def run(arguments: list[str]) -> int:
    """Run this program there; the first time, that downloads some gigabytes of Python packages."""
    python = folder() / "python" / "bin" / "python"
    if not (folder() / "done").exists():
        shutil.rmtree(folder(), ignore_errors=True)
        print("installing the public package, once", file=sys.stderr, flush=True)
        uv = Path(sys.executable).with_name("uv")
        place = python.parents[1]
        subprocess.run([uv, "venv", "--quiet", "--python", sys.executable, place], check=True)
        install: list[str | Path] = [uv, "pip", "install", "--quiet", "--python", python]
        extras = [part for extra in EXTRAS for part in ("--extra", extra)]
        subprocess.run([*install, "-r", REQUIREMENTS, "-r", PROJECT, *extras], check=True)
        (folder() / "done").touch()
    sources = os.pathsep.join(str(ROOT / each) for each in ("serving_image", "dev"))
    own = {
        "PYTHONPATH": sources,
        "YOLO_CONFIG_DIR": str(folder()),
        "YOLO_AUTOINSTALL": "false",  # what is missing is an error, not a download
        "YOLO_OFFLINE": "true",
        "YOLO_VERBOSE": "false",
    }
    return subprocess.run([python, "-m", "parity", *arguments], env=os.environ | own).returncode
