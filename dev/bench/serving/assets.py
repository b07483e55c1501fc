"""What a run needs and keeps for the next: the peers' environment, the network, the pictures."""

import hashlib
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

HERE = Path(__file__).parent
ROOT = HERE.parents[2]
CACHE = Path.home() / ".cache" / "yolofleet" / "bench"
REQUIREMENTS = HERE / "requirements-peers.txt"
WIDTH, HEIGHT = 1280, 720
PICTURE_BYTES = 150_000
PICTURES = 6


@dataclass(frozen=True, slots=True)
class Assets:
    """Where everything is."""

    python: Path  # of the peers' environment
    folder: Path
    pictures: tuple[Path, ...]

    @property
    def checkpoint(self) -> Path:
        """Return the network as the public package trains it."""
        return self.folder / "yolov8n.pt"

    @property
    def network(self) -> Path:
        """Return it as ONNX, for any size and batch."""
        return self.folder / "yolov8n.onnx"

    @property
    def square(self) -> Path:
        """Return it as ONNX, for one square picture."""
        return self.folder / "yolov8n-square.onnx"


def prepare() -> Assets:
    """Make what is missing; the first time this downloads some gigabytes of Python packages."""
    digest = hashlib.sha256(REQUIREMENTS.read_bytes() + (HERE / "export.py").read_bytes())
    folder = CACHE / f"{digest.hexdigest()[:12]}-{sys.version_info[0]}.{sys.version_info[1]}"
    python = folder / "peers" / "bin" / "python"
    done = folder / "done"
    if not done.exists():
        shutil.rmtree(folder, ignore_errors=True)
        _install(python)
        command = [python, HERE / "export.py", folder, *_pictures(folder)]
        subprocess.run(command, env=environment(), check=True, stdout=sys.stderr)
        done.touch()
    return Assets(python, folder, _pictures(folder))


def pictures_only(name: str) -> Assets:
    """Make what a run without peers needs, which is no download: a folder, and pictures in it."""
    folder = CACHE / name
    folder.mkdir(parents=True, exist_ok=True)
    return Assets(folder / "no-peers", folder, _pictures(folder))


def environment() -> dict[str, str]:
    """Return this process's environment, with the project's sources for whom it starts."""
    sources = os.pathsep.join(str(ROOT / each) for each in ("serving_image", "dev"))
    return {**os.environ, "PYTHONPATH": sources, "PYTHONUNBUFFERED": "1"}


def _install(python: Path) -> None:
    print("installing the peers, once", file=sys.stderr, flush=True)
    uv = Path(sys.executable).with_name("uv")
    subprocess.run(
        [uv, "venv", "--quiet", "--python", sys.executable, python.parents[1]], check=True
    )
    subprocess.run(
        # Compiled, or the first start of each would be of another kind than the next.
        [
            uv,
            "pip",
            "install",
            "--quiet",
            "--compile-bytecode",
            "--python",
            python,
            "-r",
            REQUIREMENTS,
        ],
        check=True,
    )


def _pictures(folder: Path) -> tuple[Path, ...]:
    paths = tuple(folder / f"picture-{number}.jpg" for number in range(PICTURES))
    for number, path in enumerate(paths):
        if not path.exists():
            path.write_bytes(picture(number))
    return paths


def picture(seed: int) -> bytes:
    """Draw a street-like JPEG: soft light, hard edges, and the grain that brings it to its size."""
    random = np.random.default_rng(seed)
    small = random.integers(0, 256, (9, 16, 3), np.uint8)
    image = cv2.resize(small, (WIDTH, HEIGHT), interpolation=cv2.INTER_CUBIC)
    for _ in range(40):
        corner = random.integers(0, (WIDTH, HEIGHT))
        sides = random.integers(20, 300, 2)
        colour = tuple(int(each) for each in random.integers(0, 256, 3))
        cv2.rectangle(image, corner.tolist(), (corner + sides).tolist(), colour, -1)
    grain = random.normal(0, 6, (HEIGHT, WIDTH, 1))
    image = np.clip(image + grain, 0, 255).astype(np.uint8)
    encoded = b""
    for quality in range(95, 40, -1):
        encoded = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, quality])[1].tobytes()
        if len(encoded) <= PICTURE_BYTES:
            break
    return encoded
