"""The account of a detector's pods: without rights and without a token for the API server.

Else pods run as the namespace's `default`, and get whatever somebody grants that one.
"""

from collections.abc import Collection

from yolofleet.api.detector import Detector
from yolofleet.api.names import Manifest
from yolofleet.manifests.child import child

_SECRETS = "imagePullSecrets"


def service_account(detector: Detector, pull_secrets: Collection[str] = ()) -> Manifest:
    """Return the ServiceAccount of the detector, whose pods pull images with `pull_secrets`."""
    return child(
        "service_account.yaml.j2",
        detector,
        detector.name,
        pull_secrets=[{"name": name} for name in pull_secrets] or None,
    )


def pull_secrets_of(*accounts: Manifest | None) -> list[str]:
    """Return the Secrets that accounts pull images with, each once."""
    named = [each for account in accounts if account for each in account.get(_SECRETS) or ()]
    return list(dict.fromkeys(str(each["name"]) for each in named if each.get("name")))
