"""What to do where the operator cannot read what pods counted: the causes that there are."""

from yolofleet.api.pod_template import EVIDENCE_PORT
from yolofleet.workloads.judged import PAST_THE_SIDECAR

_PORT = EVIDENCE_PORT[1]

REMEDY = (
    f"The operator asks each pod for GET /evidence on port {_PORT}, in plain HTTP and past all"
    " proxies. Where nobody answers in time, a NetworkPolicy of somebody's keeps it out: let its"
    " namespace reach that port. Where it is refused or cut off, another container has the port,"
    " such as a sidecar that is injected, or the mesh asks for mTLS (STRICT) on it: keep the pod's"
    f" annotation {PAST_THE_SIDECAR}, or set portLevelMtls {_PORT} PERMISSIVE in a"
    " PeerAuthentication. Where something else answers, that has the port, or the image in"
    " spec.runtime.image is of another version"
)
