"""From the address of a model to its bytes; nothing is handed on unchecked.

What was hashed is what gets loaded: the backends are given the bytes, never a path at which
somebody could have put another file in between.
"""

import hashlib
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlsplit

from yoloserve.errors import (
    DigestMismatch,
    InvalidSettings,
    ModelDownloadFailed,
    ModelNotFound,
)
from yoloserve.formats import Format, Parts, parts_in, parts_of
from yoloserve.settings import Settings

BUNDLED = Path(__file__).parent / "models"
SUFFIX_OF_BUNDLED = ".onnx", ".torchscript"  # the same weights, for the runtimes of each
DOWNLOAD_CHUNK = 2**20
DOWNLOAD_TIMEOUT_S = 30.0  # without a byte, not for the whole file
MAX_REDIRECTS = 5


@dataclass(frozen=True, slots=True, repr=False)
class ModelFile:
    """A checked model: its parts, and where they came from."""

    parts: Parts
    sha256: str
    stem: str
    bundled: bool  # ours: its probe picture and the objects in it are known

    @property
    def format(self) -> Format:
        """What kind of file it is."""
        return self.parts.format

    @property
    def content(self) -> bytes:
        """The file, or of several the graph."""
        return self.parts.content


def fetch(settings: Settings, preferred: Format) -> ModelFile:
    """Read the model at `settings.model`, checking digest and format.

    preferred: which of the bundled files to take, where both are there. Raises `ModelNotFound`,
    `ModelDownloadFailed`, `DigestMismatch`, `ModelUnsupported`, or `InvalidSettings`.
    """
    address = urlsplit(settings.model)
    if address.scheme == "demo":
        path = _bundled(address.netloc, preferred)
    elif address.scheme == "file":
        path = Path(unquote(address.path))
    elif address.scheme in ("http", "https"):
        path = _download(settings)
    else:
        raise InvalidSettings(
            f"model {settings.model!r}: the address must begin with demo://, file:///, "
            "https:// or http://"
        )
    sha256, parts = _opened(path, settings)
    stem = Path(unquote(address.path)).stem or address.netloc
    return ModelFile(parts, sha256, stem, address.scheme == "demo")


def _opened(path: Path, settings: Settings) -> tuple[str, Parts]:
    """Read a file or a folder; only what has the digest asked for is looked into."""
    if path.is_dir():
        files = {entry.name: _read(entry) for entry in sorted(path.iterdir()) if entry.is_file()}
        _require_digest(sha256 := digest_of_folder(files), settings)
        return sha256, parts_in(files)
    content = _read(path)
    _require_digest(sha256 := hashlib.sha256(content).hexdigest(), settings)
    limit, pickles = settings.max_model_bytes, settings.allow_pickle
    return sha256, parts_of(content, most=limit, allow_pickle=pickles)


def digest_of_folder(files: Mapping[str, bytes]) -> str:
    """Digest a folder as `LC_ALL=C sha256sum * | sha256sum` does, run inside of it."""
    lines = (f"{hashlib.sha256(files[name]).hexdigest()}  {name}\n" for name in sorted(files))
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def _bundled(name: str, preferred: Format) -> Path:
    suffix = SUFFIX_OF_BUNDLED[preferred is Format.TORCHSCRIPT]
    path = BUNDLED / f"{name}{suffix}"
    if not path.is_file():
        known = ", ".join(sorted(f"demo://{p.stem}" for p in BUNDLED.glob(f"*{suffix}")))
        raise ModelNotFound(f"there is no bundled model demo://{name}, only {known or 'none'}")
    return path


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise ModelNotFound(f"there is no file {path}") from None
    except OSError as error:
        raise ModelNotFound(f"cannot read {path}: {error.strerror}") from error


def _download(settings: Settings) -> Path:
    """Download into the cache, unless a file with the digest asked for is there already."""
    cache = settings.cache_dir / "models"
    if settings.sha256 and (cached := cache / settings.sha256).is_file():
        if hashlib.sha256(cached.read_bytes()).hexdigest() == settings.sha256:
            return cached
        cached.unlink(missing_ok=True)  # a disk that lies is no reason to fail for ever
    try:
        cache.mkdir(parents=True, exist_ok=True)
        # A model appears under its digest whole or not at all, however the process ends.
        with tempfile.TemporaryDirectory(dir=cache, prefix=".part-") as folder:
            part = Path(folder) / "model"
            sha256 = _stream(settings, part)
            _require_digest(sha256, settings)
            part.replace(cache / sha256)
    except OSError as error:
        raise ModelDownloadFailed(f"cannot write to {cache}: {error.strerror}") from error
    return cache / sha256


def _require_digest(sha256: str, settings: Settings) -> None:
    if settings.sha256 not in (None, sha256):
        raise DigestMismatch(
            f"{settings.model} has the digest {sha256}, but {settings.sha256} was asked for"
        )


def _stream(settings: Settings, path: Path) -> str:
    """Copy the model's body to `path`, and return its digest."""
    import ssl

    import httpx  # here, because importing it takes longer than loading a bundled model

    digest, size = hashlib.sha256(), 0
    try:
        with (
            httpx.Client(
                follow_redirects=True,
                max_redirects=MAX_REDIRECTS,
                timeout=DOWNLOAD_TIMEOUT_S,
                verify=ssl.create_default_context(),  # the system's authorities, SSL_CERT_FILE too
            ) as client,
            client.stream("GET", settings.model) as response,
            path.open("wb") as file,
        ):
            if response.status_code in (404, 410):
                raise ModelNotFound(f"{settings.model} answered {response.status_code}")
            response.raise_for_status()
            for chunk in response.iter_bytes(DOWNLOAD_CHUNK):
                size += len(chunk)
                if size > settings.max_model_bytes:
                    raise ModelDownloadFailed(
                        f"{settings.model} is larger than {settings.max_model_bytes} bytes"
                    )
                digest.update(chunk)
                file.write(chunk)
    except httpx.HTTPError as error:
        raise ModelDownloadFailed(f"cannot download {settings.model}: {error}") from error
    return digest.hexdigest()
