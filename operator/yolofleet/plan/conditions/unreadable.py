"""What to do where the operator cannot read what pods counted: the causes that there are."""

from yolofleet.api.analysis import Analysis, Source
from yolofleet.api.pod_template import EVIDENCE_PORT
from yolofleet.workloads.judged import PAST_THE_SIDECAR

_PORT = EVIDENCE_PORT[1]

_OF_PODS = (
    f"The operator asks each pod for GET /evidence on port {_PORT}, in plain HTTP and past all"
    " proxies. Where nobody answers in time, a NetworkPolicy of somebody's keeps it out: let its"
    " namespace reach that port. Where it is refused or cut off, another container has the port,"
    " such as a sidecar that is injected, or the mesh asks for mTLS (STRICT) on it: keep the pod's"
    f" annotation {PAST_THE_SIDECAR}, or set portLevelMtls {_PORT} PERMISSIVE in a"
    " PeerAuthentication. Where something else answers, that has the port, or the image in"
    " spec.runtime.image is of another version. Where pods may not be reached at all, let them be"
    " scraped: spec.rollout.analysis.source: Prometheus"
)

_OF_PROMETHEUS = (
    "Asked is the Prometheus that prometheus.url of the operator's chart names, for pods by the"
    " labels namespace and pod. It has to scrape their /metrics at least once a minute: by the"
    " PodMonitor that the operator makes, or a job of yours; spec.access.allowFrom lets it in, and"
    " with spec.access.metricsOpen false it needs a key"
)


def remedy(asked: Analysis | None) -> str:
    """Say what to do, by where the counters are to come from."""
    return _OF_PROMETHEUS if asked and asked.source is Source.PROMETHEUS else _OF_PODS
