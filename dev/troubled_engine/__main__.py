"""`python -m troubled_engine serve` takes the settings of `yoloserve serve`, and `TROUBLED_*`."""

import sys
from functools import partial

from troubled_engine.engine import start
from yoloserve import __main__ as yoloserve
from yoloserve import commands


def main() -> int:
    """Run one command of the server's, around a network in trouble."""
    return yoloserve.main(serve=partial(commands.serve, start=start))


if __name__ == "__main__":
    sys.exit(main())
