"""Whose rights a revision's pods have: those of their detector's own account, which are none."""

from yolofleet.api.detector import Detector
from yolofleet.workloads.revision import Revision

_SINCE = 3
"""The render version from which pods have an account of their own."""


def account_of(detector: Detector, revision: Revision) -> str | None:
    """Return the account that the operator gives the pods of `revision`; None: the default one."""
    return detector.name if revision.render_version >= _SINCE else None


def needs_account(detector: Detector, revision: Revision) -> bool:
    """Say whether pods of `revision` run as the detector's own account."""
    named = revision.pod_template.spec.get("serviceAccountName")
    return not named and account_of(detector, revision) is not None
