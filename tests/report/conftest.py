"""Run folders to make reports of, pages of them, and a browser to open these in."""

from collections.abc import Iterator
from pathlib import Path

import chain_folders
import pytest
import rlhf_folders
import run_folders
from chromium import Chromium

from align import report


@pytest.fixture
def run_folder(tmp_path: Path) -> Path:
    """A finished SFT and a GRPO that still runs."""
    out = tmp_path / "runs" / "demo"
    run_folders.demo(out)
    return out


@pytest.fixture
def rlhf_folder(tmp_path: Path) -> Path:
    """SFT, and from it a reward model, GRPO, PPO and DPO."""
    out = tmp_path / "runs" / "rlhf"
    rlhf_folders.rlhf(out)
    return out


@pytest.fixture
def rm_folder(tmp_path: Path) -> Path:
    """A reward model alone, with its held-out pairs."""
    out = tmp_path / "runs" / "rm"
    rlhf_folders.reward_model(out)
    return out


@pytest.fixture
def chain_folder(tmp_path: Path) -> Path:
    """The R1 chain's seven stages, the last not reached, with two evaluations."""
    out = tmp_path / "runs" / "r1"
    chain_folders.chain(out)
    return out


@pytest.fixture(scope="session")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chromium]:
    with Chromium(tmp_path_factory.mktemp("profile")) as browser:
        yield browser


@pytest.fixture
def browser(chromium: Chromium) -> Iterator[Chromium]:
    """As a desk's screen; what it logged and fetched is looked at in the end."""
    chromium.events.clear()
    chromium.screen(1280, 900)
    yield chromium
    assert chromium.errors() == []
    assert chromium.requests() == []


@pytest.fixture(scope="session")
def chain_page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The chain without most of its curves, which are slow to draw and not looked at here."""
    out = tmp_path_factory.mktemp("r1")
    chain_folders.chain(out)
    run_folders.without_curves(out, "zero", "rejection")
    return report.write(out)


@pytest.fixture(scope="session")
def many_page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("many")
    chain_folders.many(out)
    run_folders.without_curves(out)
    return report.write(out)
