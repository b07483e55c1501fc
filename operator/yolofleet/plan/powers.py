"""What a spec can take beyond its detector, and which of it the cluster's admin forbids.

Whoever may edit a YoloDetector makes the operator start pods. Pod Security admission judges these
pods as it judges all of a namespace; this tells the editor, and holds what admission does not know
of: accounts, Secrets, images of others.
"""

import json
import re
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from itertools import pairwise
from typing import Any, Final

import orjson
import yaml

from yolofleet.api.base import InvalidSpec, first_of
from yolofleet.api.detector import DetectorSpec, Engine, Runtime
from yolofleet.api.pod_template import MOST_LEVELS, SERVER_CONTAINER, PodTemplate
from yolofleet.runtime.nesting import deeper_than
from yolofleet.runtime.quoting import cut


class Power(StrEnum):
    """What an admin can forbid, by the names of the chart's `podTemplate.forbid`."""

    HOST_NAMESPACES = "hostNamespaces"
    HOST_PATH = "hostPath"
    HOST_PORTS = "hostPorts"
    PRIVILEGED = "privileged"
    SERVICE_ACCOUNT = "serviceAccount"
    SECRETS = "secrets"
    CONTAINERS = "containers"
    PRIORITY = "priority"
    NODE_NAME = "nodeName"
    RUNTIME_CLASS = "runtimeClass"
    RAY = "ray"


_WARNINGS: Final[Mapping[Power, str]] = {
    Power.HOST_NAMESPACES: "shares the node's namespaces: no NetworkPolicy holds there",
    Power.HOST_PATH: "gives the pods files of the node, and stays there when they move",
    Power.HOST_PORTS: "takes a port of the node: one pod a node, past Service and NetworkPolicy",
    Power.PRIVILEGED: "gives the container rights on its node",
    Power.PRIORITY: "pods of a lower priority are ended where these find no room",
    Power.NODE_NAME: "passes by the scheduler: taints and room do not count, nothing starts on a"
    " node that is full or gone",
    Power.RUNTIME_CLASS: "another runtime runs the pods: it may keep them less apart from their"
    " node, and nodes without it run none",
}
"""What most people regret. Accounts, Secrets and own containers are everyday work."""


@dataclass(frozen=True, slots=True)
class Use:
    """A power that a template takes, and the field that does."""

    power: Power
    field: str


def uses(spec: DetectorSpec) -> Iterator[Use]:
    """Find the powers that `spec` takes: by its templates, and by what it runs on.

    On Ray the head has KubeRay's account for its autoscaler, which patches all pods and RayClusters
    of the namespace; the autoscaler runs in the head's image, which may be the user's.
    """
    yield from _of_runtime(spec.runtime, "spec.runtime")
    if spec.canary:
        yield from _of_runtime(spec.canary.runtime, "spec.canary.runtime")
    yield from _of_template(spec.pod_template, "spec.podTemplate")
    if spec.canary and spec.canary.pod_template is not None:
        yield from _of_template(spec.canary.pod_template, "spec.canary.podTemplate")


def refusals(spec: DetectorSpec, forbidden: Collection[Power]) -> list[str]:
    """Tell each field that takes what is forbidden."""
    return [
        f"{use.field}: this cluster's admin forbids {use.power} (podTemplate.forbid of the chart);"
        " remove it, or ask for it"
        for use in uses(spec)
        if use.power in forbidden
    ]


def check(spec: DetectorSpec, forbidden: Collection[Power]) -> None:
    """Raise InvalidSpec if a spec takes what is forbidden."""
    if refused := refusals(spec, forbidden):
        raise InvalidSpec(*first_of(refused))


def warnings(spec: DetectorSpec) -> Iterator[str]:
    """Say what of the templates reaches beyond the pods."""
    for use in uses(spec):
        if warning := _WARNINGS.get(use.power):
            yield f"{use.field}: {warning}"


_PLACING: Final[Mapping[str, Power]] = {
    "priorityClassName": Power.PRIORITY,
    "priority": Power.PRIORITY,
    "nodeName": Power.NODE_NAME,
    "runtimeClassName": Power.RUNTIME_CLASS,
}


def _of_template(template: PodTemplate, path: str) -> Iterator[Use]:
    annotations = template.metadata.get("annotations")
    if isinstance(annotations, Mapping):
        yield from _of_annotations(annotations, f"{path}.metadata.annotations")
    yield from _of_pod(template.spec, f"{path}.spec")


def _of_runtime(runtime: Runtime, path: str) -> Iterator[Use]:
    if runtime.engine is Engine.RAY:
        yield Use(Power.RAY, f"{path}.engine")
    if _ENDS_DOUBLE.search(runtime.image):  # the image's tag is filled in too: see `_told`
        yield from (Use(power, f"{path}.image") for power in _OF_MORE)


_APP_ARMOR: Final = "container.apparmor.security.beta.kubernetes.io/"  # of each container, by name
_MORE_VOLUMES: Final = "sidecar.istio.io/userVolume"
_TO_THE_INJECTOR: Final[Mapping[str, tuple[Power, Collection[str]]]] = {
    "sidecar.istio.io/proxyImage": (Power.CONTAINERS, ()),
    "sidecar.istio.io/bootstrapOverride": (Power.CONTAINERS, ()),
    "proxy.istio.io/overrides": (Power.CONTAINERS, ()),
    "inject.istio.io/templates": (Power.CONTAINERS, ()),
    "sidecar.istio.io/interceptionMode": (Power.PRIVILEGED, ("TPROXY",)),
    "sidecar.istio.io/capNetBindService": (Power.PRIVILEGED, ("true",)),
    "sidecar.istio.io/enableCoreDump": (Power.PRIVILEGED, ("true",)),
}
"""Annotations by which Istio's injector changes a pod, and the values that do (none: any).

Source: https://istio.io/latest/docs/reference/config/annotations and injection-template.yaml of
istiod.
"""
_TO_THE_PROXY: Final = (
    (re.compile("interceptionmode"), ("REDIRECT", "NONE"), Power.PRIVILEGED),  # TPROXY, also as 1
    (re.compile("iptablestracelogging"), ("false",), Power.PRIVILEGED),
    (re.compile("customconfigfile|bootstraptemplatepath|binarypath"), (), Power.CONTAINERS),
    (re.compile("istiobootstrap|ld(?:preload|librarypath|audit)"), (), Power.CONTAINERS),
)
"""What `proxy.istio.io/config` and variables of the proxy take, and the values that take nothing.

By names without capitals and _, as fields may be written with and without. By the first two that
template makes a privileged proxy, by the others a proxy runs what its user has. All else is
everyday work, and gives a pod's proxy no more than that has.
"""


def _of_annotations(annotations: Mapping[str, Any], path: str) -> Iterator[Use]:
    for name, value in annotations.items():
        here = f"{path}[{cut(name)}]"
        if name.startswith(_APP_ARMOR) and value == "unconfined":
            yield Use(Power.PRIVILEGED, here)
        try:
            told = _told(name, str(value))
        except ValueError:
            yield from (Use(power, here) for power in _OF_MORE)
            continue
        yield from (Use(power, here) for power in _of_proxy(told))
        if name == _MORE_VOLUMES:
            for volume in _named(str(value)):
                yield from _of_volume(volume, here)
        elif name in _TO_THE_INJECTOR:
            power, values = _TO_THE_INJECTOR[name]
            if not values or value in values:
                yield Use(power, here)


def _of_proxy(told: list[str]) -> Iterator[Power]:
    pairs = [(_folded(name), value) for name, value in pairwise([*told, ""])]
    for taking, harmless, power in _TO_THE_PROXY:
        if any(taking.search(name) and value not in harmless for name, value in pairs):
            yield power


def _folded(name: str) -> str:
    return name.replace("_", "").casefold()


_OF_MORE: Final = (
    Power.CONTAINERS,
    Power.PRIVILEGED,
    Power.HOST_PATH,
    Power.SECRETS,
    Power.SERVICE_ACCOUNT,
)
_SIGN: Final = r"(?:[A-Za-z0-9 ._,/*+=%@$()-]|:(?! ))"
_PLAIN: Final = re.compile(rf"{_SIGN}*+")
_IN_QUOTES: Final = re.compile(rf"(?:{_SIGN}|[|^?&;!~<>])*+")
_NAME: Final = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
_BY_NAME: Final = (_MORE_VOLUMES, "sidecar.istio.io/userVolumeMount")
_VARIABLES: Final = ("apm.datadoghq.com/env", "sidecar.maistra.io/proxyEnv")
_STATISTICS: Final = "sidecar.istio.io/stats"
_ENDS_DOUBLE: Final = re.compile(r'["\\]')
_ENDED_BY: Final[Mapping[str, re.Pattern[str]]] = {
    "k8s.v1.cni.cncf.io/networks": re.compile("'"),
    "resource.opentelemetry.io/service.namespace": _ENDS_DOUBLE,
    "resource.opentelemetry.io/service.version": _ENDS_DOUBLE,
    "resource.opentelemetry.io/service.instance.id": _ENDS_DOUBLE,
}
"""Annotations of others that the template has in quotation marks, and what ends these."""


def _told(name: str, value: str) -> list[str]:
    """Return what an annotation tells a pod's proxy: names and their values in turn.

    Raises ValueError if it may become more of a pod than a value in it: Istio's injector fills its
    template in as text and reads that as YAML. A line's end or a quotation mark in one of its
    annotations, or in a key of what it reads as JSON, is a container of any kind. What cannot be
    read here may be readable there. Statistics are no part of it. Of others' annotations the
    template has few, from Multus' (with `pilot.cni.provider: multus`) to OpenTelemetry's.
    """
    if name == "proxy.istio.io/config":
        return _told_by_config(value)
    if name in _BY_NAME:
        _named(value)
    elif name in _VARIABLES:
        read = _read(value)
        pairs = read.items() if isinstance(read, dict) else [(value, "")]
        return _all(_PLAIN, [str(word) for pair in pairs for word in pair])
    elif name in _ENDED_BY:
        _none(_ENDED_BY[name], value)
    elif name.partition("/")[0].endswith("istio.io") and not name.startswith(_STATISTICS):
        _all(_PLAIN, [value])
    return []


_FILLED_IN: Final = re.compile("proxymetadata|imagetype|cacertificates(?!pem)")
_WRITTEN: Final = re.compile(r"[\t\n -~]*+")  # other signs may end a line of YAML


def _told_by_config(text: str) -> list[str]:
    """Return the words of a proxy's configuration; ValueError if it may be more.

    A few fields are filled in as they are, and then all words have to fit; the rest is JSON there,
    which has no lines and quotation marks of its own.
    """
    words = _words(text)
    told = [word.value for word in words]
    if not any(_FILLED_IN.search(_folded(word)) for word in told):
        return _all(_WRITTEN, told)
    if any(word.style in ("|", ">") for word in words):
        raise ValueError("has lines")
    return _all(_IN_QUOTES, told)


_MOST_LETTERS: Final = 2**16
_MOST_TOKENS: Final = 5_000
"""So much is read at once: some ten milliseconds' worth, and a hundred times an everyday one."""
_READ_APART: Final = re.compile("[\x85\u2028\u2029\ufeff]|\r(?!\n)")  # as parsers differ
_QUOTATION_MARK: Final = re.compile("[\"']")
_OPENING: Final = (
    *(yaml.BlockMappingStartToken, yaml.BlockSequenceStartToken),
    *(yaml.FlowMappingStartToken, yaml.FlowSequenceStartToken),
)
_CLOSING: Final = (yaml.BlockEndToken, yaml.FlowMappingEndToken, yaml.FlowSequenceEndToken)
_MORE_THAN_WORDS: Final = (yaml.AliasToken, yaml.AnchorToken, yaml.DirectiveToken, yaml.TagToken)


def _words(text: str) -> list[yaml.ScalarToken]:
    """Read YAML as its words in order, keys and values.

    By what reads it there too (libyaml, which Istio's parser was translated from): which quotation
    mark opens, and where a comment is, depends on all that stands before. Raises ValueError for
    what may be read in two ways, and for what is no plain data.
    """
    if len(text) > _MOST_LETTERS:
        raise ValueError("too long")
    _none(_READ_APART, text)
    words: list[yaml.ScalarToken] = []
    depth = 0
    try:
        for number, token in enumerate(yaml.scan(text, Loader=yaml.CSafeLoader)):
            depth += isinstance(token, _OPENING) - isinstance(token, _CLOSING)
            if depth > MOST_LEVELS or number > _MOST_TOKENS:
                raise ValueError("too much")
            if isinstance(token, _MORE_THAN_WORDS):
                raise ValueError("more than words")
            if isinstance(token, yaml.ScalarToken):
                words.append(token)
    except yaml.YAMLError as error:
        raise ValueError("no YAML") from error
    for word in words:
        if word.plain:
            _none(_QUOTATION_MARK, word.value)
    return words


def _all(shape: re.Pattern[str], texts: list[str]) -> list[str]:
    if not all(map(shape.fullmatch, texts)):
        raise ValueError("has a sign that may be more")
    return texts


def _none(sign: re.Pattern[str], text: str) -> None:
    if sign.search(text):
        raise ValueError("has a sign that may be more")


def _named(text: str) -> list[Mapping[str, Any]]:
    """Read volumes, or their mounts, that are written as JSON: a list, or a map by their names.

    Raises ValueError if they are anything else.
    """
    read = _read(text)
    if isinstance(read, dict) and all(map(_NAME.fullmatch, read)):
        read = list(read.values())
    if not isinstance(read, list) or not all(isinstance(each, dict) for each in read):
        raise ValueError("neither a list nor a map by names")
    return read


def _read(text: str) -> Any:
    """Read JSON, with the names that matter as Kubernetes spells them; ValueError if it is none.

    Go minds no capitals, and joins what is there twice: that is none here.
    """
    if deeper_than(MOST_LEVELS, orjson.loads(text)):
        raise ValueError("too deep")
    return json.loads(text, object_pairs_hook=_respelled)


def _respelled(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    folded = [name.casefold() for name, _ in pairs]
    if len(set(folded)) < len(pairs):
        raise ValueError("a name is there twice")
    return {
        _SPELLED.get(fold, name): value for fold, (name, value) in zip(folded, pairs, strict=True)
    }


def _of_pod(pod: Mapping[str, Any], path: str) -> Iterator[Use]:
    for name in ("hostNetwork", "hostPID", "hostIPC"):
        if pod.get(name):
            yield Use(Power.HOST_NAMESPACES, f"{path}.{name}")
    if pod.get("hostUsers") is True:  # Kubernetes' default, but somebody insists
        yield Use(Power.HOST_NAMESPACES, f"{path}.hostUsers")
    for name in ("serviceAccountName", "automountServiceAccountToken"):
        if pod.get(name):
            yield Use(Power.SERVICE_ACCOUNT, f"{path}.{name}")
    for name, power in _PLACING.items():
        if pod.get(name):
            yield Use(power, f"{path}.{name}")
    yield from _of_context(pod.get("securityContext"), f"{path}.securityContext")
    for volume in _items(pod, "volumes"):
        yield from _of_volume(volume, f"{path}.volumes[{cut(volume.get('name'))}]")
    for kind in ("containers", "initContainers"):
        for container in _items(pod, kind):
            yield from _of_container(container, f"{path}.{kind}[{cut(container.get('name'))}]")


def _of_container(container: Mapping[str, Any], path: str) -> Iterator[Use]:
    if container.get("name") != SERVER_CONTAINER:
        yield Use(Power.CONTAINERS, path)
    yield from _of_context(container.get("securityContext"), f"{path}.securityContext")
    for port in _items(container, "ports"):
        if port.get("hostPort") or port.get("hostIP"):
            yield Use(Power.HOST_PORTS, f"{path}.ports[{cut(port.get('containerPort'))}].hostPort")
    for entry in _items(container, "env"):
        if _holds(entry.get("valueFrom"), "secretKeyRef"):
            yield Use(Power.SECRETS, f"{path}.env[{cut(entry.get('name'))}].valueFrom.secretKeyRef")
    for number, source in enumerate(_items(container, "envFrom")):
        if _holds(source, "secretRef"):
            yield Use(Power.SECRETS, f"{path}.envFrom[{number}].secretRef")
    if container.get("volumeDevices"):
        yield Use(Power.HOST_PATH, f"{path}.volumeDevices")


_UNSAFE_CONTEXT: Final[Mapping[str, Callable[[Any], bool]]] = {
    "privileged": bool,
    "allowPrivilegeEscalation": bool,
    "runAsUser": lambda user: user == 0,
    "runAsGroup": lambda group: group == 0,
    "runAsNonRoot": lambda held: held is False,
    "procMount": lambda mount: mount not in (None, "Default"),
    "capabilities": lambda given: bool(isinstance(given, Mapping) and given.get("add")),
    "seccompProfile": lambda given: _is_unconfined(given),
    "appArmorProfile": lambda given: _is_unconfined(given),
    "seLinuxOptions": bool,
    "sysctls": bool,
    "supplementalGroups": lambda groups: isinstance(groups, list) and 0 in groups,
    "fsGroup": lambda group: group == 0,
    "windowsOptions": lambda given: _holds(given, "hostProcess"),
}
"""Fields of a security context, and whether a value gives more rights than pods have here."""


def _of_context(context: object, path: str) -> Iterator[Use]:
    if not isinstance(context, Mapping):
        return  # the API server refuses it
    for field, is_unsafe in _UNSAFE_CONTEXT.items():
        if field in context and is_unsafe(context[field]):
            yield Use(Power.PRIVILEGED, f"{path}.{field}")


_SECRETS_OF_VOLUMES: Final[Mapping[str, str]] = {
    "azureFile": "secretName",
    "cephfs": "secretRef",
    "cinder": "secretRef",
    "csi": "nodePublishSecretRef",
    "flexVolume": "secretRef",
    "iscsi": "secretRef",
    "rbd": "secretRef",
    "scaleIO": "secretRef",
    "storageos": "secretRef",
}
"""Sources of volumes that name a Secret for the storage behind them, and where."""
_PROJECTED: Final[Mapping[str, Power]] = {
    "secret": Power.SECRETS,
    "serviceAccountToken": Power.SERVICE_ACCOUNT,
    "podCertificate": Power.SERVICE_ACCOUNT,
}
_SPELLED: Final[Mapping[str, str]] = {
    name.casefold(): name
    for name in (
        *("hostPath", "secret", "projected", "sources"),
        *_SECRETS_OF_VOLUMES,
        *_SECRETS_OF_VOLUMES.values(),
        *_PROJECTED,
    )
}


def _of_volume(volume: Mapping[str, Any], path: str) -> Iterator[Use]:
    if "hostPath" in volume:
        yield Use(Power.HOST_PATH, f"{path}.hostPath")
    if "secret" in volume:
        yield Use(Power.SECRETS, f"{path}.secret")
    for source, field in _SECRETS_OF_VOLUMES.items():
        if _holds(volume.get(source), field):
            yield Use(Power.SECRETS, f"{path}.{source}.{field}")
    for number, projected in enumerate(_items(volume.get("projected"), "sources")):
        for source, power in _PROJECTED.items():
            if source in projected:
                yield Use(power, f"{path}.projected.sources[{number}].{source}")


def _items(value: object, name: str) -> list[Mapping[str, Any]]:
    """Return the mappings of the list `name`; what is neither, the API server refuses."""
    items = value.get(name) if isinstance(value, Mapping) else None
    return [item for item in items if isinstance(item, Mapping)] if isinstance(items, list) else []


def _holds(value: object, name: str) -> bool:
    return isinstance(value, Mapping) and bool(value.get(name))


def _is_unconfined(profile: object) -> bool:
    return isinstance(profile, Mapping) and profile.get("type") == "Unconfined"
