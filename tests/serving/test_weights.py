"""Where models come from, and what is refused on the way."""

import hashlib
import http.server
import io
import subprocess
import threading
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from yoloserve.errors import DigestMismatch, InvalidSettings, ModelDownloadFailed, ModelNotFound
from yoloserve.model import weights
from yoloserve.model.formats import Format
from yoloserve.model.sources import oci
from yoloserve.model.sources.http import download
from yoloserve.model.weights import fetch
from yoloserve.settings import Settings

MODEL = b"\x08\x08\x12\x04ONNX\x3a\x00"  # version, producer, an empty graph
SHA256 = hashlib.sha256(MODEL).hexdigest()
SOON_S = 0.01  # a server of this process looks so often whether it is to end


@dataclass
class ModelServer:
    """A real HTTP server in this process: path -> (status, body)."""

    url: str
    answers: dict[str, tuple[int, bytes]] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)


@pytest.fixture
def server() -> Iterator[ModelServer]:
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            told.asked.append(self.path)
            status, body = told.answers.get(self.path, (404, b""))
            self.send_response(status)
            if status == 302:
                self.send_header("Location", body.decode())
            # What `cut` promises it does not send.
            self.send_header("Content-Length", str(len(body) + 10 * (self.path == "/cut")))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as listening:
        told = ModelServer(f"http://127.0.0.1:{listening.server_port}")
        thread = threading.Thread(target=listening.serve_forever, args=(SOON_S,))
        thread.start()
        yield told
        listening.shutdown()
        thread.join()


@pytest.fixture
def asking(tmp_path: Path) -> Callable[..., Settings]:
    def asking(**given: object) -> Settings:
        if str(given.get("model")).startswith("http://"):
            given.setdefault("sha256", SHA256)
        return Settings(cache_dir=tmp_path / "cache", **given)

    return asking


def files_in(folder: Path) -> list[str]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return sorted(path.name for path in files if not path.name.startswith(".lock"))


@pytest.fixture(autouse=True)
def _no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("yoloserve.model.sources.http.time.sleep", lambda _seconds: None)


def test_a_file_is_read_and_told_by_its_digest(tmp_path: Path, asking) -> None:
    (tmp_path / "gate v2.onnx").write_bytes(MODEL)
    model = fetch(asking(model=(tmp_path / "gate v2.onnx").as_uri()), Format.ONNX)
    assert (model.content, model.sha256, model.stem) == (MODEL, SHA256, "gate v2")
    assert not model.bundled


def test_a_download_is_cached_by_its_digest(server: ModelServer, asking, tmp_path: Path) -> None:
    server.answers["/gate.onnx"] = (200, MODEL)
    wanted = asking(model=f"{server.url}/gate.onnx", sha256=SHA256)
    first, second = fetch(wanted, Format.ONNX), fetch(wanted, Format.ONNX)
    assert first.content == second.content == MODEL
    assert server.asked == ["/gate.onnx"]
    assert files_in(tmp_path / "cache") == [SHA256]


def test_without_a_digest_every_start_downloads(asking, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def download(url: str, part: Path, **_: object) -> None:
        asked.append(url)
        part.write_bytes(MODEL)

    monkeypatch.setattr("yoloserve.model.sources.http.download", download)
    for _ in range(2):
        fetch(asking(model="https://models.example.com/gate.onnx"), Format.ONNX)
    assert len(asked) == 2


def test_a_model_over_plain_http_is_not_asked_for_without_its_digest(
    server: ModelServer, asking
) -> None:
    server.answers["/gate.onnx"] = (200, MODEL)
    with pytest.raises(InvalidSettings, match=r"YOLOSERVE_SHA256 \(spec\.model\.sha256\)"):
        fetch(asking(model=f"{server.url}/gate.onnx", sha256=None), Format.ONNX)
    assert server.asked == []


def test_a_redirect_to_plain_http_needs_the_digest_as_well(
    server: ModelServer, tmp_path: Path
) -> None:
    server.answers["/gate.onnx"] = (200, MODEL)
    there, part = f"{server.url}/gate.onnx", tmp_path / "part"
    with pytest.raises(ModelDownloadFailed, match=r"leads to plain http.*YOLOSERVE_SHA256"):
        download(there, part, most=1000, headers={}, pinned=False)
    assert not part.exists()
    download(there, part, most=1000, headers={}, pinned=True)


def test_a_registry_over_plain_http_needs_a_digest(asking) -> None:
    plain = {"registry_plain_http": True}
    with pytest.raises(InvalidSettings, match="plain http needs its digest"):
        fetch(asking(model="oci://registry.example.com/vision/gate:v1", **plain), Format.ONNX)
    by_digest = f"oci://registry.example.com/vision/gate@sha256:{SHA256}"
    assert not oci.is_open_to_all(asking(model=by_digest, **plain))
    assert not oci.is_open_to_all(asking(model="oci://registry.example.com/vision/gate:v1"))
    assert not oci.is_open_to_all(asking(model="oci://localhost:5000/vision/gate:v1", **plain))


def test_a_cached_file_that_has_changed_is_downloaded_again(
    server: ModelServer, asking, tmp_path: Path
) -> None:
    server.answers["/gate.onnx"] = (200, MODEL)
    wanted = asking(model=f"{server.url}/gate.onnx", sha256=SHA256)
    fetch(wanted, Format.ONNX)
    (tmp_path / "cache" / "models" / SHA256).write_bytes(b"\x08 something else")
    assert fetch(wanted, Format.ONNX).content == MODEL
    assert len(server.asked) == 2


def test_another_digest_is_refused_and_nothing_is_kept(
    server: ModelServer, asking, tmp_path: Path
) -> None:
    server.answers["/gate.onnx"] = (200, MODEL)
    with pytest.raises(DigestMismatch, match=SHA256):
        fetch(asking(model=f"{server.url}/gate.onnx", sha256="0" * 64), Format.ONNX)
    assert files_in(tmp_path / "cache") == []


def test_a_file_with_another_digest_is_refused(tmp_path: Path, asking) -> None:
    (tmp_path / "gate.onnx").write_bytes(MODEL)
    with pytest.raises(DigestMismatch, match=SHA256):
        fetch(asking(model=(tmp_path / "gate.onnx").as_uri(), sha256="0" * 64), Format.ONNX)


def test_a_redirect_is_followed(server: ModelServer, asking) -> None:
    server.answers |= {"/latest": (302, b"/gate.onnx"), "/gate.onnx": (200, MODEL)}
    assert fetch(asking(model=f"{server.url}/latest"), Format.ONNX).content == MODEL


def test_redirects_in_a_circle_end(server: ModelServer, asking) -> None:
    server.answers["/latest"] = (302, b"/latest")
    with pytest.raises(ModelDownloadFailed, match="redirects"):
        fetch(asking(model=f"{server.url}/latest"), Format.ONNX)


@pytest.mark.parametrize(
    ("path", "answer", "error"),
    [
        ("/missing", (404, b""), ModelNotFound),
        ("/gone", (410, b""), ModelNotFound),
        ("/forbidden", (403, b""), ModelDownloadFailed),
        ("/broken", (500, b""), ModelDownloadFailed),
        ("/cut", (200, MODEL), ModelDownloadFailed),
    ],
)
def test_what_does_not_arrive_leaves_no_half_file(
    server: ModelServer, asking, tmp_path: Path, path: str, answer, error
) -> None:
    server.answers[path] = answer
    with pytest.raises(error, match=server.url):
        fetch(asking(model=f"{server.url}{path}"), Format.ONNX)
    assert files_in(tmp_path / "cache") == []


def test_a_download_has_a_largest_size(server: ModelServer, asking, tmp_path: Path) -> None:
    server.answers["/gate.onnx"] = (200, MODEL)
    with pytest.raises(ModelDownloadFailed, match="larger than 5 bytes"):
        fetch(asking(model=f"{server.url}/gate.onnx", max_model_bytes=5), Format.ONNX)
    assert files_in(tmp_path / "cache") == []


def test_a_server_that_does_not_answer_is_told(asking, nobodys_port: int) -> None:
    with pytest.raises(ModelDownloadFailed, match="refused"):
        fetch(asking(model=f"http://127.0.0.1:{nobodys_port}/gate.onnx"), Format.ONNX)


def test_a_cache_that_cannot_be_written_is_told(server: ModelServer, tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("a file where the directory should be")
    server.answers["/gate.onnx"] = (200, MODEL)
    address = f"{server.url}/gate.onnx"
    wanted = Settings(cache_dir=tmp_path / "cache", model=address, sha256=SHA256)
    with pytest.raises(ModelDownloadFailed, match="cannot write"):
        fetch(wanted, Format.ONNX)


@pytest.mark.parametrize("address", ["gs://bucket/gate.onnx", "gate.onnx", "ftp://host/gate.onnx"])
def test_an_address_nobody_can_read_names_those_that_can_be(asking, address: str) -> None:
    with pytest.raises(InvalidSettings, match="must begin with demo://"):
        fetch(asking(model=address), Format.ONNX)


@pytest.mark.parametrize("address", ["file:///nowhere/gate.onnx", "demo://nothing"])
def test_a_model_that_is_not_there_is_told(asking, address: str) -> None:
    with pytest.raises(ModelNotFound, match="there is no"):
        fetch(asking(model=address), Format.ONNX)


def test_the_bundled_models_come_in_the_format_the_runtime_reads(
    asking, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(weights, "BUNDLED", tmp_path)
    (tmp_path / "shapes.onnx").write_bytes(MODEL)
    (tmp_path / "shapes.torchscript").write_bytes(zipped("shapes/code/network.py"))
    assert fetch(asking(), Format.ONNX).format is Format.ONNX
    model = fetch(asking(), Format.TORCHSCRIPT)
    assert (model.format, model.stem, model.bundled) == (Format.TORCHSCRIPT, "shapes", True)


def zipped(*names: str) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name in names:
            archive.writestr(name, "")
    return file.getvalue()


def test_a_folder_is_told_by_the_digest_that_a_shell_can_make(tmp_path: Path, asking) -> None:
    folder = tmp_path / "gate_openvino_model"
    folder.mkdir()
    (folder / "gate.xml").write_bytes(b"<net/>")
    (folder / "gate.bin").write_bytes(b"\0\1")
    (folder / ".gitattributes").write_text("*.bin filter=lfs")
    command = ["bash", "-c", "LC_ALL=C sha256sum * | sha256sum"]
    told = subprocess.run(command, cwd=folder, capture_output=True, check=True, text=True)
    sha256 = told.stdout.split()[0]
    model = fetch(asking(model=folder.as_uri(), sha256=sha256), Format.ONNX)
    assert (model.format, model.content, model.parts.weights) == (
        Format.OPENVINO, b"<net/>", b"\0\1"
    )  # fmt: skip
    assert model.sha256 == sha256
