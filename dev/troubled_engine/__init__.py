"""The server with a trouble of its own: `python -m troubled_engine serve` is `yoloserve serve`.

It loads and runs the network that the settings ask for; environment variables say what is wrong:

    TROUBLED_SLOWER      the network's time, times this (1)
    TROUBLED_FAILURES    share of calls that fail, 0 to 1, spread evenly (0)
    TROUBLED_BLIND       true: scores are all nothing (false)
    TROUBLED_AFTER_S     the trouble begins so many seconds after the start (0)

A watch over the probe picture meets the trouble too: `YOLOSERVE_PROBE_INTERVAL_SECONDS=0` leaves it
out where it is not to find it first.

It is no part of the product: `python -m seeing` builds an image of it on the server's, with the
models that `python -m canaries` makes.
"""
