"""Weights beside an ONNX file are served with it from anywhere, and never without its digest."""

import tracemalloc
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from yoloserve.engine.starting import start
from yoloserve.errors import ModelUnsupported, StartupFailure
from yoloserve.model import external
from yoloserve.model.formats import parts_in
from yoloserve.model.weights import BUNDLED
from yoloserve.settings import BackendName, Settings

EYES = (BUNDLED / "shapes.onnx").read_bytes()


@pytest.fixture
def apart(tmp_path: Path) -> Path:
    """A folder with a graph, and its weights in a file beside it."""
    folder = tmp_path / "own"
    folder.mkdir()
    onnx.save(
        onnx.load_from_string(EYES),
        folder / "gate.onnx",
        save_as_external_data=True,
        location="gate.onnx.data",
        size_threshold=0,
    )
    return folder


def weights(content: bytes) -> dict[str, np.ndarray]:
    return {
        w.name: numpy_helper.to_array(w) for w in onnx.load_from_string(content).graph.initializer
    }


def test_a_folder_gives_one_file_with_the_same_weights(apart: Path) -> None:
    files = {path.name: path.read_bytes() for path in apart.iterdir()}
    found, expected = weights(parts_in(files).content), weights(EYES)
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        np.testing.assert_array_equal(found[name], value)


def test_a_file_without_references_is_handed_on_as_it_is() -> None:
    assert external.whole(EYES, external.refused) is EYES


@pytest.mark.parametrize("backend", [BackendName.OPENVINO, BackendName.ONNXRUNTIME])
def test_the_folder_is_served_whatever_lies_in_the_working_directory(
    apart: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, backend: BackendName
) -> None:
    other = tmp_path / "other"
    other.mkdir()
    (other / "gate.onnx.data").write_bytes(bytes((apart / "gate.onnx.data").stat().st_size))
    monkeypatch.chdir(other)
    running = start(Settings(model=apart.as_uri(), cache_dir=tmp_path / "c", backend=backend))
    assert len(running.info.classes) > 0


@pytest.mark.parametrize("folder", ["own", "."])
def test_the_file_alone_is_refused_with_what_to_do(
    apart: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, folder: str
) -> None:
    monkeypatch.chdir(tmp_path / folder)
    address = (apart / "gate.onnx").as_uri()
    with pytest.raises(ModelUnsupported, match=r"'gate\.onnx\.data'.*give the folder of both"):
        start(Settings(model=address, cache_dir=tmp_path / "c"))


@pytest.mark.parametrize("location", ["/etc/hostname", "../gate.onnx.data", "other.data", ""])
def test_a_reference_that_leads_out_of_the_folder_is_refused(apart: Path, location: str) -> None:
    model = onnx.load(apart / "gate.onnx", load_external_data=False)
    for weight in model.graph.initializer:
        for entry in weight.external_data:
            if entry.key == "location":
                entry.value = location
    files = {"gate.onnx": model.SerializeToString(), "gate.onnx.data": b"1"}
    with pytest.raises(ModelUnsupported, match="not among its files"):
        parts_in(files)


def test_weights_that_are_cut_short_are_told(apart: Path) -> None:
    files = {"gate.onnx": (apart / "gate.onnx").read_bytes(), "gate.onnx.data": b"1"}
    with pytest.raises(ModelUnsupported, match="fewer than the model asks"):
        parts_in(files)


def test_no_start_failure_shows_credentials_or_a_signature() -> None:
    address = "https://me:s3cret@store.example.com/gate.onnx?X-Amz-Signature=abc&sv=1"
    told = str(StartupFailure(f"cannot download {address}: 403 for url '{address}'"))
    assert "s3cret" not in told
    assert "abc" not in told
    assert "https://…@store.example.com/gate.onnx?…" in told
    kept = "oci://registry.example.com/gate@sha256:12#gate.onnx is not there"
    assert str(StartupFailure(kept)) == kept


@pytest.mark.parametrize(
    "address",
    [
        "https://user:it's3cret@store.example.com/gate.onnx",
        'https://user:it"s3cret@store.example.com/gate.onnx',
        "https://user:it\\s3cret@store.example.com/gate.onnx",
        "https://user:it/s3cret@store.example.com/gate.onnx",
        "https://store.example.com/gate.onnx?token=it's3cret",
        'https://store.example.com/gate.onnx?token=it"s3cret',
    ],
)
def test_a_password_may_have_any_sign_in_it(address: str) -> None:
    for message in (f"{address} answered 404", f"model {address!r}: no", f"see '{address}'."):
        told = str(StartupFailure(message))
        assert "s3cret" not in told
        assert "store.example.com/gate.onnx" in told


def field(number: int, content: bytes) -> bytes:
    return external._varint(number << 3 | 2) + external._varint(len(content)) + content


def test_a_graph_in_a_graph_a_thousand_times_is_refused() -> None:
    """9 KB of it ended the start without a reason."""
    graph = b""
    for _ in range(1000):
        graph = field(1, field(5, field(6, graph)))
    with pytest.raises(ModelUnsupported, match="more than 100 messages in each other"):
        external.whole(b"\x08\x07" + field(7, graph), external.refused)


def test_tensors_that_share_a_file_are_counted_before_they_are_made(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """40 of them on a file of 100 MB took eight gigabytes before the model was too large."""
    tensor = field(13, field(1, b"location") + field(2, b"w")) + b"\x70\x01"
    model = b"\x08\x07" + field(7, field(5, tensor) * 40)
    content = bytes(10**6)
    tracemalloc.start()
    try:
        monkeypatch.setattr(external, "MOST_BYTES", 10**7)
        with pytest.raises(ModelUnsupported, match="more than 2 GB"):
            parts_in({"gate.onnx": model, "w": content})
        assert tracemalloc.get_traced_memory()[1] < 10**6
    finally:
        tracemalloc.stop()
