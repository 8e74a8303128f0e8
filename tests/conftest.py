"""Shared fixtures: real data where it is at hand, the SmolLM2 weights, tiny models."""

import os
from pathlib import Path

import pytest

# Runs of the suite share a machine with whatever else is on it; spinning threads do not.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
REPOSITORY = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Real data sets kept beside the checkout; the project does not need them."""
    folder = Path(os.environ.get("ALIGN_SHARED_DATA", REPOSITORY.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"no real data at {folder} (set ALIGN_SHARED_DATA)")
    return folder
