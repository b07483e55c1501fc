"""From the address of a model to its bytes; nothing is handed on unchecked.

What was hashed is what gets loaded: the backends are given the bytes, never a path at which
somebody could have put another file in between.
"""

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from urllib.parse import unquote, urlsplit

from yoloserve.errors import (
    DigestMismatch,
    InvalidSettings,
    ModelDownloadFailed,
    ModelNotFound,
    ModelUnsupported,
    bare,
)
from yoloserve.model.formats import Format, Parts, parts_in, parts_of
from yoloserve.model.sources.store import Store, digest_of, discard, size_of
from yoloserve.settings import Settings

BUNDLED = Path(__file__).parents[1] / "bundled"
SUFFIX_OF_BUNDLED = ".onnx", ".torchscript"  # the same weights, for the runtimes of each
DOWNLOADED = "https", "http", "s3", "oci"


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
    try:
        address = urlsplit(settings.model)
    except ValueError:  # whose own words may have a password in them
        raise InvalidSettings(f"model {bare(settings.model)!r} is no URL") from None
    _require_pinned(settings, over_http=address.scheme == "http")
    if address.scheme == "demo":
        path = _bundled(address.netloc, preferred)
    elif address.scheme == "file":
        path = Path(unquote(address.path))
    elif address.scheme in DOWNLOADED:
        path = _download(settings)
    else:
        raise InvalidSettings(
            f"model {bare(settings.model)!r}: the address must begin with demo://, file:///, "
            + ", ".join(f"{scheme}://" for scheme in DOWNLOADED)
        )
    bundled = address.scheme == "demo"
    try:
        sha256, parts = _opened(path, settings, bundled=bundled)
    except ModelUnsupported as error:  # what opens files does not know whose they are
        raise ModelUnsupported(f"model {bare(settings.model)}: {error}") from error
    stem = Path(unquote(address.path)).stem or address.netloc
    return ModelFile(parts, sha256, stem, bundled)


def _require_pinned(settings: Settings, *, over_http: bool) -> None:
    """Raise `InvalidSettings` for what anybody on its way could replace, and nobody would see."""
    if over_http and settings.sha256 is None:
        raise InvalidSettings(
            f"model {bare(settings.model)}: a model that comes over plain http needs its digest:"
            " give YOLOSERVE_SHA256 (spec.model.sha256), as sha256sum tells it, or use https"
        )


def _opened(path: Path, settings: Settings, *, bundled: bool) -> tuple[str, Parts]:
    """Read a file or a folder; only what has the digest asked for is looked into."""
    trusted = _trusted(settings, bundled=bundled)
    if _is_folder(path):
        files = {entry.name: _read(entry) for entry in sorted(path.iterdir()) if _counts(entry)}
        _require_digest(sha256 := digest_of_folder(files), settings)
        return sha256, parts_in(files, trusted=trusted)
    content = _read(path)
    _require_digest(sha256 := hashlib.sha256(content).hexdigest(), settings)
    return sha256, parts_of(content, most=settings.max_model_bytes, trusted=trusted)


def _trusted(settings: Settings, *, bundled: bool) -> list[Format]:
    """List the formats that may be loaded though they can run code."""
    allowed = {
        Format.CHECKPOINT: settings.allow_pickle,
        Format.TORCHSCRIPT: settings.allow_torchscript or bundled,
        Format.TENSORRT: settings.allow_engine,
    }
    return [form for form, is_allowed in allowed.items() if is_allowed]


def _counts(entry: Path) -> bool:
    """Say whether a folder's entry is part of the model: hidden files are not, as for a shell."""
    return entry.is_file() and not entry.name.startswith(".")


def _is_folder(path: Path) -> bool:
    try:
        return path.is_dir()
    except OSError:  # a name that is too long: reading says so
        return False


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
    """Bring the model into the cache, unless it is there already."""
    # Here, because importing these takes longer than loading a bundled model.
    scheme = urlsplit(settings.model).scheme
    if scheme == "oci":
        from yoloserve.model.sources import http, oci

        _require_pinned(settings, over_http=oci.is_open_to_all(settings))
        blob = oci.resolve(settings)
        _require_digest(blob.sha256, settings)  # the registry tells it before anything is loaded
        get = partial(http.download, blob.url, headers=blob.headers, pinned=True)
        return _stored(settings, blob.sha256, get)
    if scheme == "s3":
        from yoloserve.model.sources import s3

        return _stored(settings, settings.sha256, partial(s3.download, settings.model))
    from yoloserve.model.sources import http

    headers, pinned = http.authorization(settings), settings.sha256 is not None
    get = partial(http.download, settings.model, headers=headers, pinned=pinned)
    return _stored(settings, settings.sha256, get)


def _stored(settings: Settings, sha256: str | None, get: Callable[..., None]) -> Path:
    """Find the file of that digest in the cache, or `get` it there; one process at a time."""
    store = Store(settings.cache_dir / "models")
    try:
        if found := store.find(sha256):
            return found
        with store.unfinished(settings.model) as part:
            if found := store.find(sha256):  # by whoever held the lock before
                return found
            try:
                get(part, most=settings.max_model_bytes)
                digest = digest_of(part)
                _require_digest(digest, settings, expected=sha256)
                _require_content(part, settings)
            except (DigestMismatch, ModelUnsupported, OSError):  # of no use, or there is no room
                discard(part)
                raise
            return store.keep(part, digest)
    except OSError as error:
        reason = error.strerror or error
        raise ModelDownloadFailed(f"cannot write to {settings.cache_dir}: {reason}") from error


def _require_content(part: Path, settings: Settings) -> None:
    if not size_of(part):
        raise ModelUnsupported(f"model {bare(settings.model)} is an empty file")


def _require_digest(sha256: str, settings: Settings, expected: str | None = None) -> None:
    """Compare with what was asked for, by the settings or by a manifest."""
    for wanted in (expected, settings.sha256):
        if wanted not in (None, sha256):
            raise DigestMismatch(
                f"model {bare(settings.model)} has the digest {sha256}, but {wanted} was asked for:"
                " put the file back, or give its digest (spec.model.sha256)"
            )
