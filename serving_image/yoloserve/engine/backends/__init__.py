"""The runtimes a network can run on, one file each, behind `base.Backend`."""

import sys

# `import openvino` imports its converter as well, if it can. Nothing here uses that; it takes a
# fifth of a second, and tells Google Analytics that somebody has imported OpenVINO.
sys.modules["openvino.tools.ovc"] = None  # type: ignore[assignment]
