"""Where conversions are kept: by the source's digest, the runtime, the precision and the device."""

from pathlib import Path

from yoloserve.formats import Parts, parts_in
from yoloserve.settings import BackendName, PrecisionName, Settings

DEVICE = "cpu"


def place_of(settings: Settings, sha256: str, precision: PrecisionName) -> Path:
    """Return the folder of the conversion of a file."""
    name = f"{sha256}-{BackendName.OPENVINO}-{precision}-{DEVICE}"
    return settings.cache_dir / "converted" / name


def find(settings: Settings, sha256: str, precision: PrecisionName) -> Parts | None:
    """Read a conversion that has passed its comparison, if there is one."""
    place = place_of(settings, sha256, precision)
    if not place.is_dir():
        return None
    return parts_in({path.name: path.read_bytes() for path in place.iterdir()})
