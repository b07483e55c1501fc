"""These tests are collected only where there is an NVIDIA GPU, and what the image for it has."""

from importlib.util import find_spec
from pathlib import Path

import pytest

from yoloserve.engine.backends import onnxruntime
from yoloserve.engine.starting import Engine, start
from yoloserve.settings import BackendName, PrecisionName, Settings

collect_ignore_glob = [] if onnxruntime.has_gpu() and find_spec("tensorrt") else ["test_*.py"]


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Keep what is compiled: each engine takes minutes."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(params=["shapes", "shapes-v2"])
def settings(request, cache: Path) -> Settings:
    return Settings(model=f"demo://{request.param}", cache_dir=cache)


@pytest.fixture
def exact(settings: Settings) -> Engine:
    """The model on the CPU, in fp32: what all the others are held to."""
    cpu = {"backend": BackendName.ONNXRUNTIME, "precision": PrecisionName.FP32}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(onnxruntime, "_available", lambda: {onnxruntime.CPU})
        engine = start(settings.model_copy(update=cpu))
    assert engine.info.device == "cpu"
    return engine
