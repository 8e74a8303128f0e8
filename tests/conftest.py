"""Shared fixtures: real data where it is at hand, the SmolLM2 weights, tiny models."""

import os
import signal
import tempfile
from pathlib import Path

import pytest
from turns import turn

# Runs of the suite share a machine with whatever else is on it; spinning threads do not.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
if "PYTEST_XDIST_WORKER" in os.environ:  # more of them would only wait for each other
    os.environ.setdefault("OMP_NUM_THREADS", "1")
MARKS = ("slow", "alone")
REPOSITORY = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Real data sets kept beside the checkout; the project does not need them."""
    folder = Path(os.environ.get("ALIGN_SHARED_DATA", REPOSITORY.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"no real data at {folder} (set ALIGN_SHARED_DATA)")
    return folder


def pytest_collection_modifyitems(items):
    """Files with slow tests first, those that measure time last, when other workers have none left
    to wait for.
    """
    marks = {mark: {item.path for item in items if item.get_closest_marker(mark)} for mark in MARKS}
    items.sort(key=lambda item: [item.path in marks["alone"], item.path not in marks["slow"]])


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item):
    """Some of what is called here takes Ctrl-C or SIGTERM over, such as a script's main: given
    back.
    """
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        return (yield)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler or signal.SIG_DFL)  # None is not Python's


@pytest.hookimpl(wrapper=True, tryfirst=True, specname="pytest_runtest_protocol")
def pytest_alone(item):
    """Where several workers run the suite, tests marked `alone` run while no other does."""
    run = os.environ.get("PYTEST_XDIST_TESTRUNUID")
    if run is None:
        return (yield)
    folder = Path(tempfile.gettempdir()) / f"align-turns-{run}"
    folder.mkdir(exist_ok=True)
    with turn(folder, alone=item.get_closest_marker("alone") is not None):
        return (yield)
