"""Run folders to make reports of."""

from pathlib import Path

import pytest
import rlhf_folders
import run_folders


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
