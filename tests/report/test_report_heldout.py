"""A reward model's held-out pairs: accuracy with interval and chance, calibration, its table."""

import json
import re
from pathlib import Path

import pytest
from page_parser import Page, load
from rlhf_folders import heldout
from run_folders import write_json

from align import report
from align.report import canvas, charts
from align.report.heldout import Bin, read_heldout


def whiskers(page: Page) -> list[dict[str, str | None]]:
    return [line for line in page.tags("line") if line.get("class") == "chance"]


def test_accuracy_stands_with_its_interval_and_chance(rm_folder: Path) -> None:
    page = load(report.write(rm_folder))
    # Wilson's interval of 358 of 400: (k + z²/2 ± z·sqrt(k(n−k)/n + z²/4)) / (n + z²).
    said = "rm orders 89.5 % of 400 held-out pairs right (95 % interval 86.1 to 92.1 %)"
    assert f"{said}: better than chance (50 %)." in page.text
    assert said in report.table(rm_folder)
    assert "Pairwise accuracy 89.5 % 86.1 to 92.1" in page.text
    assert "Expected calibration error 4.4 points" in page.text
    assert "Loss 0.271 chance: 0.693" in page.text
    assert [line["x1"] for line in whiskers(page)] == ["50.0%"]


@pytest.mark.parametrize(
    ("successes", "words"),
    [(60, "better than chance"), (59, "not distinguishable"), (41, "not dist"), (40, "worse than")],
)
def test_chance_is_inside_or_outside_the_interval(
    rm_folder: Path, successes: int, words: str
) -> None:
    """Of 100 pairs 60 are the first count whose Wilson interval (0.502 to 0.691) leaves 0.5 out."""
    write_json(rm_folder / "rm" / "heldout.json", {"pairs": 100, "successes": successes})
    found, notes = read_heldout(rm_folder / "rm" / "heldout.json")
    assert found is not None
    assert found.verdict.startswith(words)
    assert notes == []
    page = load(report.write(rm_folder))
    assert "Calibration" not in page.text  # no bins: no figure, no empty table
    assert "Expected calibration error" not in page.text


def test_calibration_figure_has_a_table_beside_it(rm_folder: Path) -> None:
    path = report.write(rm_folder)
    text = path.read_text(encoding="utf-8")
    part = text[text.index('<div class="calibration">') :]
    part = part[: part.index("</table>")]
    rows = re.findall(r'<th scope="row">([\d.]+)</th>(.*?)</tr>', part)
    bins = heldout()["bins"]
    assert [row[0] for row in rows] == [f"{100 * b['predicted']:.1f}" for b in bins]
    for (_, cells), b in zip(rows, bins, strict=True):
        figures = re.findall(r"<td[^>]*>(.*?)</td>", cells)
        low, high = 100 * b["low"], 100 * b["high"]
        assert figures == [f"{100 * b['right']:.1f}", f"{low:.1f} to {high:.1f}", str(b["pairs"])]
    assert '<svg viewBox="0 0 216 194.4" aria-hidden="true">' in part
    assert "In 10 of 10 bins the interval of the share right holds" in " ".join(part.split())
    assert 'aria-label="Calibration, in percent"' in part


def test_calibration_chart_shows_each_bin_where_it_lies() -> None:
    """Points and whiskers in the chart's own units, of axes from 0 to 1."""
    few = Bin(predicted=0.25, right=0.5, low=0.3, high=0.7, pairs=10)
    many = Bin(predicted=0.75, right=1.0, low=0.9, high=1.0, pairs=40)
    svg = canvas.svg(charts.calibration([few, many], scope="rm"))
    assert "var(--series-1)" in svg
    assert not re.search(r"#[0-9a-f]{6}", svg)
    for label in (">share right<", ">predicted probability<", ">0.25<", ">1<"):
        assert label in svg
    assert "stroke-dasharray" in svg  # the diagonal
    left, right = 0.15 * 216, 0.985 * 216
    top, bottom = 0.232 * 72, (2.7 - 0.404) * 72
    whisker = re.findall(r'd="M ([\d.]+) ([\d.]+)\s*L ([\d.]+) ([\d.]+)\s*"', svg)
    drawn = [tuple(float(number) for number in line) for line in whisker]

    def place(x: float, y: float) -> tuple[float, float]:
        return left + x * (right - left), bottom - y * (bottom - top)

    for b in (few, many):
        expected = (*place(b.predicted, b.low), *place(b.predicted, b.high))
        assert any(line == pytest.approx(expected, abs=0.02) for line in drawn)
    assert any(line == pytest.approx((*place(0, 0), *place(1, 1)), abs=0.02) for line in drawn)
    # A circle begins at its lowest point: half the root of the area 6 + 54 · pairs/40 below.
    circles = re.findall(r'd="M ([\d.]+) ([\d.]+)\s*C', svg)
    lowest = [tuple(float(number) for number in point) for point in circles]
    for point, b in zip(lowest, (few, many), strict=True):
        x, y = place(b.predicted, b.right)
        assert point == pytest.approx((x, y + (6 + 54 * b.pairs / 40) ** 0.5 / 2), abs=0.02)


def test_bins_that_cannot_be_drawn_are_left_out_and_named(rm_folder: Path) -> None:
    row = heldout()
    row["bins"][0] |= {"pairs": 0, "right": None, "low": None, "high": None}  # none fell into it
    row["bins"][1]["right"] = 1.5
    row["bins"][2] = "no bin"
    write_json(rm_folder / "rm" / "heldout.json", row)
    found, notes = read_heldout(rm_folder / "rm" / "heldout.json")
    assert found is not None
    assert len(found.bins) == 7
    assert notes == ["2 unreadable bins in rm/heldout.json left out."]
    assert notes[0] in load(report.write(rm_folder)).text


@pytest.mark.parametrize("text", ['{"pairs": 0}', '{"pairs": 3, "successes": 4}', "{", "[]"])
def test_a_file_without_pairs_is_named(rm_folder: Path, text: str) -> None:
    (rm_folder / "rm" / "heldout.json").write_text(text)
    page = load(report.write(rm_folder))
    assert "rm/heldout.json" in page.text
    assert "Held-out pairs" not in page.text


def test_one_wide_file_is_enough(tmp_path: Path) -> None:
    """A stage that wrote nothing but its held-out figures has a section."""
    write_json(tmp_path / "rm" / "heldout.json", heldout() | {"loss": 10**400})
    page = load(report.write(tmp_path))
    assert "Held-out pairs" in page.text
    assert "chance: 0.693" not in page.text
    assert json.loads((tmp_path / "rm" / "heldout.json").read_text())["loss"] == 10**400
