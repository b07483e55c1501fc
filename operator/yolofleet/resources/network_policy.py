"""Who may reach a detector's pods, and what they may reach; read off the pods as they are built.

A policy sees addresses and ports of pods, after Services have been resolved.
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any
from urllib.parse import urlsplit

from yolofleet.api.access import Isolation, Peer, Reach
from yolofleet.api.detector import Detector
from yolofleet.api.names import DETECTOR_LABEL, Manifest
from yolofleet.api.pod_template import EVIDENCE_PORT, SERVER_CONTAINER
from yolofleet.manifests.child import child
from yolofleet.plan.defaults import OperatorPods
from yolofleet.routers.choice import Proxies

SCHEME_PORTS = {"http": 80, "https": 443, "s3": 443, "gs": 443, "oci": 443}
"""Ports of the URLs that name none; other schemes (demo, file) need no network."""

FETCHES = "YOLOSERVE_URL_HOSTS"
"""The hosts from which the server may fetch pictures that callers name."""

_PROXY = re.compile(r"(https?|all)_proxy", re.IGNORECASE)
"""Variables whose URL may lack its scheme."""

DNS = (53, 5353)
"""Of the Service, and of the pods of OpenShift's DNS."""

LINK_LOCAL = (("0.0.0.0/0", ("169.254.0.0/16",)), ("::/0", ("fe80::/10", "fd00:ec2::254/128")))
"""By what holds every address: those that belong to a node's link. There clouds hand out the node's
own credentials (169.254.169.254; over IPv6 fd00:ec2::254 on EC2), which no detector needs."""

Port = tuple[str, int]
_PORT = re.compile(r"(?<=:)[0-9]{1,5}(?=\")")
"""In a JSON list of hosts: "cams.example.com:8443"."""


def network_policy(
    detector: Detector,
    pods: Sequence[Manifest],
    proxies: Proxies,
    operator: OperatorPods | None = None,
) -> Manifest:
    """Return the NetworkPolicy over all `pods` of the detector, which are given by their specs.

    operator: who reads their evidence; None: nobody may.
    """
    both = detector.spec.access.network_policy is Isolation.RESTRICTED
    return child(
        "network_policy.yaml.j2",
        detector,
        detector.name,
        selector={DETECTOR_LABEL: detector.name},
        types=["Ingress", "Egress"] if both else ["Ingress"],
        ingress=[
            *_ingress(detector, pods, proxies.reached_at),
            *(_evidence(operator) if operator and any(map(_tells, pods)) else ()),
        ],
        egress=_egress(detector, pods, proxies.reach) if both else None,
    )


def _ingress(
    detector: Detector, pods: Sequence[Manifest], proxies: Sequence[int]
) -> list[dict[str, Any]]:
    declared = {
        (str(port.get("protocol", "TCP")), int(port["containerPort"]))
        for pod in pods
        for container in (*pod["containers"], *pod.get("initContainers", ()))  # or sidecars
        for port in container.get("ports", ())
        if not _is_of_evidence(container, port)
    }
    served: dict[str, Any] = {"ports": _ports(declared)}
    if allowed := detector.spec.access.allow_from:
        served["from"] = [_own_pods(detector), *(_dump(peer) for peer in allowed)]
    return [served, *([{"ports": _ports(_tcp(proxies))}] if proxies else [])]


def _evidence(operator: OperatorPods) -> Iterator[dict[str, Any]]:
    """Let the operator, and nobody else, at what asks for no key."""
    namespace = {"kubernetes.io/metadata.name": operator.namespace}
    yield {
        "from": [
            {
                "namespaceSelector": {"matchLabels": namespace},
                "podSelector": {"matchLabels": dict(operator.labels)},
            }
        ],
        "ports": _ports(_tcp([EVIDENCE_PORT[1]])),
    }


def _tells(pod: Manifest) -> bool:
    return any(
        _is_of_evidence(container, port)
        for container in pod["containers"]
        for port in container.get("ports", ())
    )


def _is_of_evidence(container: Manifest, port: Manifest) -> bool:
    declared = (container["name"], port.get("name"), port["containerPort"])
    return declared == (SERVER_CONTAINER, *EVIDENCE_PORT)


def _egress(
    detector: Detector, pods: Sequence[Manifest], proxies: Sequence[int]
) -> list[dict[str, Any]]:
    allowed = [_dump(reach) for reach in detector.spec.access.allow_to]
    dns = {(protocol, port) for protocol in ("TCP", "UDP") for port in DNS}
    names = {"ports": _ports(dns)}  # at any address: a node's own DNS cache has a link-local one
    if not allowed and any(_brings_containers(pod) for pod in pods):
        return [names, {"to": _ANYWHERE}]
    ports = {("TCP", port) for pod in pods for port in _url_ports(pod)}
    ports |= _tcp(proxies)
    return [
        names,
        *([{"to": _ANYWHERE, "ports": _ports(ports)}] if ports else []),
        {"to": [_own_pods(detector)]},
        *allowed,
    ]


_ANYWHERE = [
    *({"ipBlock": {"cidr": every, "except": list(link)}} for every, link in LINK_LOCAL),
    {"namespaceSelector": {}},  # some network plug-ins take no pod for an address
]
"""Every pod and every address but those of the node's link."""


def _brings_containers(pod: Manifest) -> bool:
    names = {container["name"] for container in pod["containers"]} - {SERVER_CONTAINER}
    return bool(names or pod.get("initContainers"))


def _url_ports(pod: Manifest) -> Iterator[int]:
    """Find the ports of all URLs that the server is told: of its model, keys, proxies, buckets."""
    for container in pod["containers"]:
        for entry in container.get("env", ()):
            value = str(entry.get("value", ""))
            if entry["name"] == FETCHES and value:
                named = (int(port) for port in _PORT.findall(value))
                yield from (80, 443, *(port for port in named if 0 < port < 2**16))
            if "//" not in value:  # no URL names a host without, but a proxy's
                value = f"http://{value}" if _PROXY.fullmatch(entry["name"]) else ""
            try:
                url = urlsplit(value)
                port = url.port or SCHEME_PORTS.get(url.scheme)
            except ValueError:  # it only looks like a URL
                continue
            if port and url.hostname:
                yield port


def _own_pods(detector: Detector) -> dict[str, Any]:
    return {"podSelector": {"matchLabels": {DETECTOR_LABEL: detector.name}}}


def _tcp(ports: Iterable[int]) -> set[Port]:
    return {("TCP", port) for port in ports}


def _ports(ports: Iterable[Port]) -> list[dict[str, Any]]:
    return [{"protocol": protocol, "port": port} for protocol, port in sorted(ports)]


def _dump(peer: Peer | Reach) -> dict[str, Any]:
    fields: dict[str, Any] = peer.model_dump(mode="json", by_alias=True, exclude_none=True)
    return {name: value for name, value in fields.items() if value != []}
