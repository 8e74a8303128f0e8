"""Whether a run of several processes is the run of one: weights, figures and samples."""

import pytest
import runs
from safetensors.torch import load_file

SAME = ("loss", "grad_norm", "tokens", "reward", "reward_std", "length", "dead_groups", "entropy")


def weights(stage):
    return load_file(stage / "model" / "model.safetensors")


def check_same(stage, reference):
    """To 1e-5, relative to the largest weight of each matrix: the order of sums differs."""
    mine, theirs = weights(stage), weights(reference)
    assert mine.keys() == theirs.keys()
    for name, expected in theirs.items():
        gap = (mine[name] - expected).abs().max() / expected.abs().max()
        assert gap < 1e-5, (name, float(gap))
    # Where advantages cancel the loss is a difference of numbers around 1, hence `abs`.
    pairs = zip(
        runs.rows(stage / "metrics.jsonl"), runs.rows(reference / "metrics.jsonl"), strict=True
    )
    for my_row, their_row in pairs:
        assert my_row.keys() == their_row.keys()
        for name in [name for name in SAME if name in their_row]:
            assert my_row[name] == pytest.approx(their_row[name], rel=1e-5, abs=1e-6), name
    drawn, expected = _samples(stage), _samples(reference)
    assert drawn.keys() == expected.keys()
    for which, row in expected.items():
        assert drawn[which] == _nearly(row), which


def _nearly(value):
    """Numbers up to rounding: advantages, and the scores of reward models."""
    if isinstance(value, dict):
        return {name: _nearly(each) for name, each in value.items()}
    return pytest.approx(value, rel=1e-5, abs=1e-6) if isinstance(value, float) else value


def _samples(stage):
    """Every sample by what names it; none may be there twice."""
    rows = runs.rows(stage / "samples.jsonl")
    named = {(row["step"], row["prompt_index"], row["sample"]): row for row in rows}
    assert len(named) == len(rows)
    return named


def moved(stage):
    """There was something to learn; else two runs are equal for nothing."""
    norms = [row["grad_norm"] for row in runs.rows(stage / "metrics.jsonl")]
    assert max(norms) > 1e-3, norms
