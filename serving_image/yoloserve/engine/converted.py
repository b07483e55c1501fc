"""Where conversions are kept: by the source's digest, the runtime, the precision and the device."""

import io
import logging
import zipfile
from pathlib import Path

from yoloserve.engine import kept
from yoloserve.engine.backends.base import Tuning
from yoloserve.model.formats import Parts, parts_of, written_engine
from yoloserve.model.own import own_folder
from yoloserve.settings import BackendName, PrecisionName, Settings

log = logging.getLogger(__name__)

RUNTIMES = BackendName.OPENVINO, BackendName.TENSORRT
"""What models are converted to."""
ENGINE = "model.engine"  # of a conversion for TensorRT


def is_kept(backend: BackendName, precision: PrecisionName) -> bool:
    """Say whether a server gains by a conversion: others it makes of the source as it loads it."""
    return backend is BackendName.TENSORRT or (
        backend is BackendName.OPENVINO and precision is PrecisionName.INT8
    )


def folder_of(settings: Settings) -> Path:
    """Return the folder of all conversions; raise `OSError` if none can be had."""
    return own_folder(settings.cache_dir) / "converted"


def place_of(settings: Settings, backend: BackendName, sha256: str, tuning: Tuning) -> Path:
    """Return the file of the conversion of a model; raise `OSError` if none can be had."""
    if backend is BackendName.TENSORRT:
        from yoloserve.engine.backends import tensorrt  # here, where it is known to be installed

        made_for = tensorrt.made_for(tuning)
    else:
        made_for = f"{tuning.precision}-cpu"
    return folder_of(settings) / f"{sha256}-{backend}-{made_for}.kept"


def keep(place: Path, made: Path) -> None:
    """Keep a conversion, in the place of any before; `made` is its folder. Raises `OSError`."""
    if (engine := made / ENGINE).is_file():
        kept.write(place, engine.read_bytes())
        return
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        for path in made.iterdir():
            archive.write(path, path.name)
    kept.write(place, packed.getbuffer())


def find(settings: Settings, backend: BackendName, sha256: str, tuning: Tuning) -> Parts | None:
    """Read a conversion that has passed its comparison, if there is one and it is whole."""
    if not is_kept(backend, tuning.precision):
        return None
    try:
        place = place_of(settings, backend, sha256, tuning)
    except OSError:  # told by `engine`, which looks for its compiled networks there
        return None
    if (found := kept.read(place)) is None:
        return None
    log.info("conversion found", extra={"place": str(place)})
    content = bytes(found)
    if backend is BackendName.TENSORRT:
        return written_engine(content)
    return parts_of(content, most=len(content))
