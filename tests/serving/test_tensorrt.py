"""What cannot be served by TensorRT, and why; without a GPU, over a stand-in that only fails."""

import sys
from importlib import import_module
from types import ModuleType, SimpleNamespace
from typing import Any, ClassVar

import pytest
import torch

from yoloserve.engine import converted, starting
from yoloserve.engine.starting import start
from yoloserve.errors import BackendUnsupported, ModelUnsupported
from yoloserve.model.formats import engine_file
from yoloserve.model.own import own_folder
from yoloserve.settings import BackendName, PrecisionName, Settings


class Runtime:
    """Refuses every plan as TensorRT does: it logs, and returns nothing."""

    loggers: ClassVar[list[Any]] = []

    def __init__(self, said: Any) -> None:
        self._said = said
        self.loggers.append(said)

    def deserialize_cuda_engine(self, _plan: bytes) -> None:
        self._said.log("warning", "using an engine of another GPU")
        self._said.log("error", "the engine plan file is not compatible with this version")


@pytest.fixture
def tensorrt(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    module = ModuleType("tensorrt")
    types = {name: name for name in ("uint8", "float16", "float32", "int32", "int64")}
    logger = type("ILogger", (), {"INTERNAL_ERROR": "internal", "ERROR": "error"})
    vars(module).update(types, ILogger=logger, Runtime=Runtime, __version__="11.4.0")
    monkeypatch.setitem(sys.modules, "tensorrt", module)
    monkeypatch.delitem(sys.modules, "yoloserve.engine.backends.tensorrt", raising=False)
    monkeypatch.setattr(Runtime, "loggers", [])
    monkeypatch.setattr(starting, "find_spec", lambda package: package == "tensorrt" or None)
    return module


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    fake = SimpleNamespace(
        is_available=lambda: True,
        get_device_name=lambda: "NVIDIA T4",
        get_device_capability=lambda: (7, 5),
    )
    for name, function in vars(fake).items():
        monkeypatch.setattr(torch.cuda, name, function)


@pytest.fixture
def settings(tmp_path) -> Settings:
    path = tmp_path / "gate.engine"
    path.write_bytes(
        engine_file(b"ftrt" + bytes(40), {"names": {"0": "person"}, "imgsz": [64, 64]})
    )
    return Settings(
        model=path.as_uri(), backend=BackendName.TENSORRT, cache_dir=tmp_path, allow_engine=True
    )


@pytest.mark.usefixtures("tensorrt")
def test_without_a_gpu_tensorrt_says_so(settings: Settings) -> None:
    with pytest.raises(BackendUnsupported, match="no NVIDIA GPU"):
        start(settings)


@pytest.mark.usefixtures("tensorrt", "gpu")
def test_an_engine_of_another_gpu_or_version_is_told_with_what_tensorrt_says(
    settings: Settings,
) -> None:
    told = (
        r"TensorRT 11\.4\.0 on NVIDIA T4 cannot load the engine.*convert.*"
        r"says: the engine plan file is not compatible with this version$"
    )
    for _ in range(2):  # one logger, which tells of the second what was said of the second
        with pytest.raises(ModelUnsupported, match=told):
            start(settings)
    assert len(set(map(id, Runtime.loggers))) == 1


@pytest.mark.usefixtures("tensorrt", "gpu")
def test_an_engine_nobody_vouches_for_is_not_even_looked_at(settings: Settings) -> None:
    with pytest.raises(ModelUnsupported, match="native code"):
        start(settings.model_copy(update={"allow_engine": False}))


@pytest.mark.usefixtures("tensorrt", "gpu")
def test_an_onnx_model_is_not_compiled_in_8_bits(make_model, settings: Settings) -> None:
    asked = {"model": make_model(), "precision": "int8"}
    with pytest.raises(BackendUnsupported, match=r"int8.*in fp16 or fp32"):
        start(settings.model_copy(update=asked))


@pytest.mark.usefixtures("tensorrt", "gpu")
def test_an_engine_that_is_damaged_in_the_cache_is_compiled_anew(
    make_model, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    backend = import_module("yoloserve.engine.backends.tensorrt")
    made: list[str] = []

    def compile_onnx(*_: object) -> bytes:
        made.append("an engine")
        return engine_file(b"ftrt" + bytes(40), {"names": ["person"]})

    monkeypatch.setattr(backend, "compile_onnx", compile_onnx)
    of_onnx = settings.model_copy(update={"model": make_model()})
    folder = own_folder(settings.cache_dir) / "compiled"
    for times_made, content in ((1, b""), (2, b"damaged"), (3, None), (3, None)):
        with pytest.raises(ModelUnsupported, match="cannot load the engine"):
            start(of_onnx)  # by then it is in the cache
        assert len(made) == times_made
        [place] = folder.iterdir()
        if content is not None:
            place.write_bytes(content)


@pytest.mark.usefixtures("tensorrt", "gpu")
def test_a_conversion_is_found_unless_it_is_damaged(settings: Settings, tmp_path) -> None:
    tuning = starting.tuning_of(settings, PrecisionName.FP16)
    place = converted.place_of(settings, settings.backend, "0" * 64, tuning)
    place.parent.mkdir()
    (tmp_path / converted.ENGINE).write_bytes(engine_file(b"plan", {"names": ["person"]}))
    converted.keep(place, tmp_path)
    found = converted.find(settings, settings.backend, "0" * 64, tuning)
    assert found is not None
    assert (found.content, found.metadata) == (b"plan", {"names": ["person"]})
    place.write_bytes(place.read_bytes()[1:])
    assert converted.find(settings, settings.backend, "0" * 64, tuning) is None
