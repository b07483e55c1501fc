"""The server without a network: `python -m stub_engine serve` is `yoloserve serve` but for that.

HTTP, admission, batching, metrics, draining and the checks of a model's address and digest are the
server's own. Only what a network would compute is a wait, so that two cores carry a fleet whose
releases, scaling and ceilings are to be tried. It sees one object in every picture, of the first
class, in the middle.

Settings are environment variables, or lines `NAME=VALUE` of the file that `YOLOSTUB_FILE` names.
The file wins and is read again when it changes: a ConfigMap that is mounted makes a canary slow
or failing while it runs.

    YOLOSTUB_SERVICE_MS                 milliseconds a call takes (20)
    YOLOSTUB_SERVICE_MS_PER_IMAGE       as many more for each image of its batch (0)
    YOLOSTUB_SERVICE_MS_PER_MEGAPIXEL   as many more for each 10^6 pixels the network gets (0)
    YOLOSTUB_FAILURES                   share of calls that fail, 0 to 1, spread evenly (0)
    YOLOSTUB_LANES                      calls at a time (1); at the start only, as the next three
    YOLOSTUB_MAX_BATCH                  images in a call, at most (1)
    YOLOSTUB_CANDIDATES                 places at which it sees its object, in an output as long as
                                        YOLOv8's; 0: one row, with the suppression done (0)
    YOLOSTUB_FILE                       where the others may change meanwhile

One lane of single images answers 1000 / SERVICE_MS a second. Whatever asks the engine meets its
failures, so the server's watch over its probe picture does too, and a server that fails often
says that it is blind: `YOLOSERVE_PROBE_INTERVAL_SECONDS=0` leaves the watch out. Only the warm-up
is spared.

It is no part of the product. `python -m cluster stub-image` builds an image of it on the server's.
"""
