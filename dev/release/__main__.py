"""`make release VERSION=0.1.0 [REGISTRY=ghcr.io/OWNER] [IMAGES='torch gpu ray']`.

Builds the images, lists what is in them, packs the chart with their digests, and keeps all of it
in dist/VERSION. Only with REGISTRY is anything pushed to where others see it, and nothing that is
there already is overwritten. See docs/releasing.md.
"""

from __future__ import annotations

import argparse
import sys

from cluster.errors import ClusterError
from release.errors import ReleaseError
from release.making import ALWAYS, DIST, IMAGES, Listing, make


def main() -> int:
    """Release; return the exit status."""
    parser = argparse.ArgumentParser(prog="python3 -m release", description=__doc__)
    parser.add_argument("version")
    parser.add_argument("--registry", default="", help="HOST[:PORT][/PATH] to push to")
    told = f"besides {' and '.join(ALWAYS)}"
    parser.add_argument("--images", nargs="*", default=[], choices=list(IMAGES), help=told)
    asked = parser.parse_args()
    try:
        listing = make(asked.version, asked.registry, asked.images, DIST / asked.version)
    except (ClusterError, ReleaseError) as error:
        print(f"\nerror: {error}", file=sys.stderr)
        return 1
    tell(listing)
    return 0


def tell(listing: Listing) -> None:
    """Print what was released, and how it is installed."""
    print(f"dist/{listing.version}: the chart, the CRDs, a bill of materials for each image")
    if not listing.pushed_to:
        print("Nothing was pushed: give REGISTRY=HOST/PATH for that. The chart asks for")
    for name, digest in listing.images.items():
        print(f"{listing.registry}/{name}@{digest}")
    if listing.pushed_to:
        print(
            f"helm install yolofleet {listing.chart} --version {listing.version}"
            " --namespace yolofleet --create-namespace"
        )


if __name__ == "__main__":
    sys.exit(main())
