"""Runs inside an image, on its standard input: prints as JSON what pip and dpkg know of it.

The modules that it is given have to import: what cannot start is not released.
"""

import contextlib
import glob
import importlib
import json
import platform
import sys
from importlib.metadata import distributions
from pathlib import Path


def rows(path: list[str]) -> list[list[str]]:
    """Return [name, version, licence] of each distribution in these folders."""
    found = (d.metadata for d in distributions(path=path))
    return sorted(
        [d["Name"], d["Version"], (d.get_all("License-Expression") or [""])[0]] for d in found
    )


def main() -> None:
    """Print it."""
    own = [folder for folder in sys.path if folder.startswith(sys.prefix)]
    base = [
        folder
        for prefix in ("/usr/local/lib", "/usr/lib")
        for folder in glob.glob(f"{prefix}/python3*/*-packages")
        if folder not in own
    ]
    release = platform.freedesktop_os_release()
    told = {
        "python": platform.python_version(),
        "system": f"{release['ID']}-{release.get('VERSION_ID', '')}",
        "dpkg": Path("/var/lib/dpkg/status").read_text(encoding="utf-8"),
        "packages": rows(own),
        "beside": rows(base),
    }
    with contextlib.redirect_stdout(sys.stderr):
        for module in sys.argv[1:]:  # last: Ray finds more packages then, inside its own
            importlib.import_module(module)
    json.dump(told, sys.stdout)


if __name__ == "__main__":
    main()
