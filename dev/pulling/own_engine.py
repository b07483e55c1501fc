"""Inside of namespaces of its own: a network, files of /etc and an engine that end with it.

Run by `__main__.py` as the first process of a PID namespace, so that its end ends all, however it
ends. Nothing of the machine is changed: mounts, addresses and rules are the namespaces'.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from pathlib import Path
from typing import Final

from cluster import engine
from pulling.served import REGISTRIES, SITES

# Addresses for documentation (RFC 5737): nobody's, and led to what is served outside.
REGISTRY: Final = "192.0.2.1"
SITE: Final = "192.0.2.2"
# slirp4netns' own: the machine's loopback, and a resolver.
OUTSIDE: Final = "10.0.2.2"
RESOLVER: Final = "10.0.2.3"
# Nothing but the distribution's: neither Go nor programs that this project has built.
PATH: Final = "/usr/local/sbin:/usr/sbin:/usr/bin:/sbin:/bin"


def main() -> int:
    """Wait for the network, start the engine, run the command; return its exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--registry-port", type=int, required=True)
    parser.add_argument("--site-port", type=int, required=True)
    parser.add_argument("command", nargs="+")
    given = parser.parse_args()
    sys.stdin.readline()  # the network is there
    _private_files(given.folder)
    _addresses(given.registry_port, given.site_port)
    os.environ["PATH"] = PATH
    engine.start(
        *("--data-root", str(given.folder / "engine")),
        *("--registry-mirror", f"http://{REGISTRY}", "--insecure-registry", REGISTRY),
        *("--insecure-registry", "registry.k8s.io"),
    )
    return subprocess.run(given.command, check=False).returncode


def _private_files(folder: Path) -> None:
    """Put files of our own over the machine's, for this mount namespace."""
    hosts = [
        "127.0.0.1 localhost",
        *(f"{REGISTRY} {name}" for name in REGISTRIES),
        *(f"{SITE} {name}" for name in SITES),
    ]
    for path, text in {
        "/etc/hosts": "\n".join(hosts) + "\n",
        "/etc/resolv.conf": f"nameserver {RESOLVER}\n",
    }.items():
        own = folder / Path(path).name
        own.write_text(text)
        _run("mount", "--bind", str(own), str(Path(path).resolve()))
    _run("mount", "-t", "tmpfs", "tmpfs", "/run")  # the machine's engine listens there


def _addresses(registry_port: int, site_port: int) -> None:
    """Lead the two addresses to what is served on the machine's loopback, for node and engine."""
    for address, port, to in (
        (REGISTRY, "80", f"{OUTSIDE}:{registry_port}"),
        (SITE, "443", f"{OUTSIDE}:{site_port}"),
    ):
        for chain in ("OUTPUT", "PREROUTING"):
            leads = ("-d", address, "-p", "tcp", "--dport", port, "-j", "DNAT", "--to", to)
            _run("iptables", "-t", "nat", "-A", chain, *leads)
    # Other ports are closed, so that who asks with TLS first goes on without at once.
    for chain in ("OUTPUT", "FORWARD"):
        closed = ("-d", f"{REGISTRY}/30", "-p", "tcp", "-j", "REJECT", "--reject-with", "tcp-reset")
        _run("iptables", "-A", chain, *closed)
    _run("iptables", "-t", "nat", "-A", "POSTROUTING", "-o", "tap0", "-j", "MASQUERADE")


def _run(*command: str) -> None:
    subprocess.run(command, check=True)


if __name__ == "__main__":
    sys.exit(main())
