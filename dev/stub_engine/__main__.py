"""`python -m stub_engine serve` takes the settings of `yoloserve serve`, and `YOLOSTUB_*`."""

import sys
from functools import partial

from stub_engine.engine import start
from yoloserve import commands
from yoloserve.__main__ import main

if __name__ == "__main__":
    sys.exit(main(serve=partial(commands.serve, start=start)))
