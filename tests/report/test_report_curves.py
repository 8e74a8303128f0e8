"""Which logged keys become which panels, and what a chart is made of."""

import math
import re
from pathlib import Path

import pytest
from page_parser import groups, load
from run_folders import write_lines

from align import report
from align.report import canvas, charts, curves


def test_nulls_and_non_finite_numbers(tmp_path: Path) -> None:
    rows = [
        {"step": step, "steps": 30, "loss": 1.0, "kl": None, "reward/x": None if step % 2 else 0.5}
        for step in range(1, 31)
    ]
    rows[3]["loss"], rows[4]["loss"] = math.nan, math.inf
    rows[5] |= {"huge": 1e308, "text": "no number"}
    write_lines(tmp_path / "grpo" / "metrics.jsonl", rows)
    sample = {"step": 1, "prompt_index": 0, "sample": 0, "prompt": "?", "completion": None}
    nulls = {"reward": math.nan, "advantage": -math.inf, "parts": {"a": None, "b": math.nan}}
    write_lines(tmp_path / "grpo" / "samples.jsonl", [sample | nulls])
    page = load(report.write(tmp_path))
    assert "2 of 30 not finite" in page.text
    assert "1 of 1 not finite" in page.text  # huge
    assert "KL to reference" not in page.text  # never measured
    row = groups(page, "grpo")[0]["rows"][0]
    assert row["reward"] == "nan"
    assert row["advantage"] == "-inf"
    assert row["parts"] == {"a": None, "b": "nan"}
    assert row["completion"] == ""
    panel = curves.panels(rows)["Reward parts"][0]
    assert panel.steps == list(range(2, 31, 2))
    assert "nan" not in canvas.svg(charts.curve(panel))


def test_time_split_accounts_for_every_second() -> None:
    row = {"step": 1, "seconds/train": 5.0, "seconds/sample": 3.0, "seconds/total": 10.0}
    split = curves.time_split([row, row | {"step": 2, "seconds/sample": 1.0}])
    assert split is not None
    assert split.parts == {"sample": [3.0, 1.0], "train": [5.0, 5.0], "other": [2.0, 4.0]}
    assert split.shares()["train"] == (5.0, 0.5)
    plain = curves.time_split([{"step": 1, "seconds": 2.0}])
    assert plain is not None
    assert plain.parts == {"total": [2.0]}
    assert curves.time_split([{"step": 1, "loss": 1.0}]) is None


def test_charts_take_the_colours_of_the_page() -> None:
    metrics = [{"step": step, "loss": 1 / step, "seconds": 1.0} for step in range(1, 1001)]
    split = curves.time_split(metrics)
    assert split is not None
    found = charts.curve(curves.panels(metrics)["Optimization"][0]), charts.stack(split)
    drawn = [canvas.svg(drawing) for drawing in found]
    for svg in drawn:
        assert "var(--series-1)" in svg
        assert "var(--muted)" in svg
        assert not re.search(r"#[0-9a-f]{6}", svg)
        assert ">step<" in svg
        assert len(svg) < 30_000
    assert ">loss<" in drawn[0]
    assert ">seconds per step<" in drawn[1]


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.25, "0.25"),
        (5e-6, "5e−6"),
        (-5e-6, "−5e−6"),
        (-0.5, "−0.5"),
        (12_000, "12k"),
        (1.5e6, "1.5M"),
        (0, "0"),
    ],
)
def test_numbers_are_short(value: float, text: str) -> None:
    assert canvas.short(value) == text
