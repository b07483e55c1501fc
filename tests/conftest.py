"""What all tests share."""

from pathlib import Path

import pytest
from hypothesis import settings

# The same examples on every run: a release must not wait for luck. Campaigns draw at random.
settings.register_profile("steady", derandomize=True, deadline=None)
settings.register_profile("campaign", deadline=None, print_blob=True)
settings.load_profile("steady")

HERE = Path(__file__).parent
SHARED = {"e2e", "faults", "operator", "chart"}
"""Folders whose tests share what takes long to make: a cluster, a control plane."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Say which tests stay together where several processes run them: `make test` does."""
    for item in items:
        if item.get_closest_marker("xdist_group") is None:
            path = item.path.relative_to(HERE)
            folder = path.parts[0]
            group = folder if folder in SHARED else str(path)
            item.add_marker(pytest.mark.xdist_group(group))
