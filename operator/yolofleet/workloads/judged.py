"""What lets a revision be judged: its evidence, what may change while it runs, the golden set.

Pods that ran before any of this keep what they have, and are not judged.
"""

from collections.abc import Iterator
from typing import Any, Final

from yolofleet.api.access import FramesKey, ShadowKey
from yolofleet.api.names import Manifest, live_name
from yolofleet.api.pod_template import (
    EVIDENCE_PORT,
    FRAMES_KEY,
    GOLDEN,
    LIVE,
    SHADOW_KEY,
    Mount,
)
from yolofleet.workloads.accelerators import items
from yolofleet.workloads.revision import Revision

SINCE: Final = 4
"""The render version from which pods tell their evidence, and read the live configuration."""

PAST_THE_SIDECAR: Final = "traffic.sidecar.istio.io/excludeInboundPorts"
"""So the operator, which is in no mesh, reads the evidence also where the mesh asks for mTLS."""

KEY_FILE: Final = "key"
READABLE_BY_GROUP: Final = 0o440


def evidence_port(revision: Revision) -> int | None:
    """Return the port on which pods of `revision` tell their evidence; None: they do not.

    It asks for no key. So there is none on a node's own network, where no NetworkPolicy holds, nor
    where another container of the pod has that port.
    """
    return None if mute(revision) else EVIDENCE_PORT[1]


def mute(revision: Revision) -> str:
    """Say why pods of `revision` tell nobody what they counted; empty where they do."""
    pod, (_, number) = revision.pod_template.spec, EVIDENCE_PORT
    others = [*items(pod.get("containers")), *items(pod.get("initContainers"))]
    taken = {port.get("containerPort") for each in others for port in items(each.get("ports"))}
    they = f"pods of {revision.name} tell nothing to judge by:"
    if revision.render_version < SINCE:
        return f"{they} they were made by an earlier version of the operator"
    if pod.get("hostNetwork"):
        return f"{they} hostNetwork in spec.podTemplate.spec would open port {number} to everybody"
    if number in taken:
        return (
            f"{they} another container of spec.podTemplate.spec has port {number}: give it another"
        )
    return ""


def reads_live(revision: Revision) -> bool:
    """Say whether pods of `revision` read the live configuration."""
    return revision.render_version >= SINCE


def settings(revision: Revision, namespace: str) -> dict[str, str]:
    """Return what the server gets of it."""
    variables = {
        "SHADOW_KEY_FILE": f"{SHADOW_KEY.path}/{KEY_FILE}" if revision.guard.shadow_key else ""
    }
    if revision.guard.frames_key:
        variables["FRAMES_KEY_FILE"] = f"{FRAMES_KEY.path}/{KEY_FILE}"
    variables["GOLDEN_DIR"] = GOLDEN.path if revision.golden else ""
    if reads_live(revision):
        port = evidence_port(revision)
        variables |= {"NAMESPACE": namespace, "LIVE_DIR": LIVE.path}
        variables |= {"EVIDENCE_PORT": str(port) if port else ""}
    return variables


def ports(revision: Revision) -> list[dict[str, Any]]:
    """Return the ports of the server's container beside the one of requests."""
    if (number := evidence_port(revision)) is None:
        return []
    return [{"name": EVIDENCE_PORT[0], "containerPort": number, "protocol": "TCP"}]


def mounts(revision: Revision) -> Iterator[dict[str, Any]]:
    """Return what is mounted for it."""
    if reads_live(revision):
        yield _mount(LIVE)
    if revision.guard.shadow_key:
        yield _mount(SHADOW_KEY)
    if revision.guard.frames_key:
        yield _mount(FRAMES_KEY)
    if golden := revision.golden:
        yield _mount(GOLDEN) | ({"name": golden.volume} if golden.volume else {})


def volumes(detector: str, revision: Revision) -> Iterator[dict[str, Any]]:
    """Return the volumes of these mounts.

    All may be absent: what judges a release is not worth a pod that does not start. Folders are
    mounted, not files in them: only so does a change arrive, and what comes later.
    """
    if reads_live(revision):
        yield _of_config_map(LIVE, live_name(detector))
    if key := revision.guard.shadow_key:
        yield _of_secret(SHADOW_KEY, key)
    if opens := revision.guard.frames_key:
        yield _of_secret(FRAMES_KEY, opens)
    if (golden := revision.golden) and golden.config_map:
        yield _of_config_map(GOLDEN, golden.config_map)


def past_the_sidecar(pod: Manifest, revision: Revision) -> None:
    """Let a sidecar leave the port of the evidence alone, beside those that the user names."""
    if (number := evidence_port(revision)) is None:
        return
    annotations = pod["metadata"].setdefault("annotations", {})
    named = [each.strip() for each in annotations.get(PAST_THE_SIDECAR, "").split(",")]
    annotations[PAST_THE_SIDECAR] = ",".join(dict.fromkeys([*filter(None, named), str(number)]))


def _mount(mount: Mount) -> dict[str, Any]:
    return {"name": mount.volume, "mountPath": mount.path, "readOnly": True}


def _of_secret(mount: Mount, key: ShadowKey | FramesKey) -> dict[str, Any]:
    secret = {
        "secretName": key.secret_name,
        "items": [{"key": key.key, "path": KEY_FILE}],
        "defaultMode": READABLE_BY_GROUP,
        "optional": True,
    }
    return {"name": mount.volume, "secret": secret}


def _of_config_map(mount: Mount, name: str) -> dict[str, Any]:
    return {"name": mount.volume, "configMap": {"name": name, "optional": True}}
