"""Where conversions are kept: by the source's digest, the runtime, the precision and the device."""

from pathlib import Path

from yoloserve.engine.backends.base import Tuning
from yoloserve.model.formats import Parts, parts_in, written_engine
from yoloserve.model.own import own_folder
from yoloserve.settings import BackendName, Settings

RUNTIMES = BackendName.OPENVINO, BackendName.TENSORRT
"""What models are converted to."""
ENGINE = "model.engine"  # of a conversion for TensorRT


def place_of(settings: Settings, backend: BackendName, sha256: str, tuning: Tuning) -> Path:
    """Return the folder of the conversion of a file; raise `OSError` if none can be had."""
    if backend is BackendName.TENSORRT:
        from yoloserve.engine.backends import tensorrt  # here, where it is known to be installed

        made_for = tensorrt.made_for(tuning)
    else:
        made_for = f"{tuning.precision}-cpu"
    return own_folder(settings.cache_dir) / "converted" / f"{sha256}-{backend}-{made_for}"


def find(settings: Settings, backend: BackendName, sha256: str, tuning: Tuning) -> Parts | None:
    """Read a conversion that has passed its comparison, if there is one."""
    if backend not in RUNTIMES:
        return None
    try:
        place = place_of(settings, backend, sha256, tuning)
    except OSError:  # told by `engine`, which looks for its compiled networks there
        return None
    if not place.is_dir():
        return None
    if backend is BackendName.TENSORRT:
        return written_engine((place / ENGINE).read_bytes())
    return parts_in({path.name: path.read_bytes() for path in place.iterdir()})
