"""The commands: `python3 -m cluster assets | up | env | images | down | purge` and so on.

What scripts read goes to stdout, progress and errors to stderr.
"""

from __future__ import annotations

import argparse
import json
import shlex
import sys
from collections.abc import Callable

from cluster import assets, base_image, engine, images, kindcluster, mode, up
from cluster.cache import discard
from cluster.errors import ClusterError
from cluster.paths import cache_root, tools
from cluster.steps import output, run


def main() -> int:
    """Run one command; return its exit status."""
    arguments = _parse()
    command: Callable[[argparse.Namespace], None] = arguments.run
    try:
        command(arguments)
    except ClusterError as error:
        print(f"\nerror: {error}", file=sys.stderr)
        return 1
    return 0


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python3 -m cluster", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def add(name: str, run: Callable[[argparse.Namespace], None], text: str) -> None:
        commands.add_parser(name, help=text, description=text).set_defaults(run=run)

    add(
        "assets",
        _assets,
        "make what tests need without a node; print the folder of a control plane's programs",
    )
    add("env", _env, "print where the cluster and its tools are, as shell assignments")
    add("base-image", _base_image, "print the image that the product's images start from")
    add("images", _images, "build the product's images and load them; print their tags as JSON")
    add("stub-image", _stub_image, "build and load the server with the stub engine; print its tag")
    text = "install a Prometheus that scrapes what the cluster runs; print its address"
    add("prometheus", _prometheus, text)
    add("ray-image", _ray_image, "build and load the server for Ray; print its tag")
    add("kuberay", _kuberay, "install KubeRay, for detectors with `engine: ray`")
    add("down", _down, "delete the cluster, keep the caches")
    add("purge", _purge, "delete the cluster, the caches and the images built here")
    text = "make a kind cluster with Istio, or return at once if it is healthy"
    with_options = commands.add_parser("up", help=text, description=text)
    with_options.add_argument(
        "--no-metrics",
        action="store_true",
        help="leave out metrics-server (saves minutes the first time)",
    )
    with_options.set_defaults(run=_up)
    return parser.parse_args()


def _assets(_: argparse.Namespace) -> None:
    for command in ("prometheus", "promtool"):
        assets.prometheus(command)
    print(assets.directory())


def _up(arguments: argparse.Namespace) -> None:
    up.up(metrics=not arguments.no_metrics)


def _env(_: argparse.Namespace) -> None:
    for name, value in tools().environment().items():
        print(f"{name}={shlex.quote(value)}")


def _base_image(_: argparse.Namespace) -> None:
    print(base_image.image(kindcluster.mode_of_running() or mode.current()))


def _images(_: argparse.Namespace) -> None:
    print(json.dumps(images.build_and_load()))


def _stub_image(_: argparse.Namespace) -> None:
    print(images.build_and_load_upon(images.STUB))


def _prometheus(_: argparse.Namespace) -> None:
    # Not above: it reads YAML, and all else here needs nothing but Python.
    from cluster import prometheus

    up.up(metrics=False)
    prometheus.install()
    print(prometheus.url())


def _ray_image(_: argparse.Namespace) -> None:
    print(images.build_and_load_ray())


def _kuberay(_: argparse.Namespace) -> None:
    from cluster import kuberay  # as above

    kuberay.install()


def _down(_: argparse.Namespace) -> None:
    kindcluster.delete()


def _purge(_: argparse.Namespace) -> None:
    kindcluster.delete()
    if engine.answers():
        ours = output(["docker", "image", "ls", "--quiet", "--filter", "reference=yolofleet/*"])
        if ours:
            run(["docker", "image", "rm", "--force", *sorted(set(ours.split()))], log="images")
    discard(cache_root())


if __name__ == "__main__":
    sys.exit(main())
