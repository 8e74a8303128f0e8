"""The page: complete where the run is, honest where it is not, inert whatever the model wrote."""

import json
import re
from pathlib import Path

import pytest
from page_parser import groups, load
from run_folders import GROUP, PROMPTS, STEPS, write_json, write_lines

from align import report

EVIL = (
    "<think></script><script>alert(1)</script></think>"
    "<answer><img src=x onerror=alert(2)>\u2028\u2029 & \ud800 \x00 <!--<script></answer>"
)


def test_page_shows_the_whole_run(run_folder: Path) -> None:
    path = report.write(run_folder)
    page = load(path)
    assert path == run_folder / "report.html"
    assert path.stat().st_size < 5_000_000
    for words in (
        "smollm2",
        "sft → grpo → polish",
        "step 30 of 40",
        "step 12 of 12",
        "not started",
        "2026-11-18",
        "Raw accuracy",
        "KL to reference",
        "Clip fraction",
        "Dead groups",
        "Truncated",
        "Completion length",
        "Entropy",
        "Gradient norm",
        "Learning rate",
        "Mismatch / mean",
        "Layer norm / last",
    ):
        assert words in page.text, words
    titles = re.findall(r'class="title">([^<]+)<', path.read_text(encoding="utf-8"))
    assert {"Accuracy", "Format"} < set(titles)
    assert not [name for name in run_folder.iterdir() if "report.html." in name.name]


def test_page_is_self_contained_and_valid(run_folder: Path) -> None:
    page = load(report.write(run_folder))
    text = (run_folder / "report.html").read_text(encoding="utf-8")
    sources = [
        value
        for _, attrs in page.elements
        for name, value in attrs.items()
        if name in ("src", "href", "xlink:href", "srcset", "action")
    ]
    assert sources
    assert all(value.startswith("#") for value in sources)
    assert not re.search(r"@import|url\((?!#)", text)
    ids = [attrs["id"] for _, attrs in page.elements if "id" in attrs]
    assert len(ids) == len(set(ids))
    policy = next(m for m in page.tags("meta") if m.get("http-equiv") == "Content-Security-Policy")
    assert policy["content"].startswith("default-src 'none'; style-src 'unsafe-inline'; script-src")
    assert str(run_folder) not in page.text


def test_the_same_run_gives_the_same_page(run_folder: Path) -> None:
    first = report.write(run_folder).read_bytes()
    assert report.write(run_folder).read_bytes() == first


def test_model_output_is_inert(run_folder: Path) -> None:
    """Everywhere text of a run enters: completions, prompts, labels, keys, names, configuration."""
    row = json.loads((run_folder / "grpo" / "samples.jsonl").read_text().splitlines()[0])
    row |= {"completion": EVIL, "prompt": EVIL, "solution": EVIL, "outcome": EVIL}
    write_lines(run_folder / "grpo" / "samples.jsonl", [row | {"parts": {EVIL: 1.0}}])
    write_json(run_folder / "recipe.json", {"recipe": EVIL, "stages": ["grpo"], EVIL: EVIL})
    write_json(run_folder / "grpo" / "config.json", {"kind": EVIL, EVIL: EVIL})
    keys = {f"reward/{EVIL}": 1.0, EVIL: 2.0, f"seconds/{EVIL}": 3.0, "$x^": 1.0}
    write_lines(run_folder / "grpo" / "metrics.jsonl", [{"step": 1, "steps": EVIL} | keys])
    for name in ("sft", "grpo"):
        path = run_folder / "evaluations" / f"{name}.json"
        write_json(path, json.loads(path.read_text()) | {"label": EVIL + name, "data": EVIL})
    page = load(report.write(run_folder))

    assert set(page.scripts) == {"style", "samples-1", "samples-2", "script"}
    assert not page.tags("img")
    assert not [attrs for _, attrs in page.elements if any(name.startswith("on") for name in attrs)]
    for name in ("samples-1", "samples-2"):
        assert re.fullmatch(r"[A-Za-z0-9+/]+=*", page.scripts[name])
    group = groups(page, "grpo")[0]
    assert (group["prompt"], group["solution"]) == (EVIL, EVIL)
    assert group["rows"][0]["completion"] == EVIL
    assert "innerHTML" not in page.scripts["script"]
    assert "insertAdjacentHTML" not in page.scripts["script"]


@pytest.mark.parametrize("keep", ["sft", "grpo", "evaluations"])
def test_any_part_of_a_run_is_enough(run_folder: Path, tmp_path: Path, keep: str) -> None:
    part = tmp_path / "part"
    part.mkdir()
    (run_folder / keep).rename(part / keep)
    page = load(report.write(part))
    assert ("Before and after" in page.text) == (keep == "evaluations")
    assert ("Completions" in page.text) == (keep in ("grpo", "evaluations"))
    assert ("Loss" in page.text) == (keep in ("sft", "grpo"))
    if keep != "evaluations":
        assert report.table(part).startswith("No evaluations in")


def test_missing_folder_says_what_to_type(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"scripts/run.py --recipe NAME --out .*nowhere"):
        report.write(tmp_path / "nowhere")


def test_a_folder_that_holds_no_run_is_left_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "notes.md").write_text("no run")
    with pytest.raises(FileNotFoundError, match=r"holds no run; give a run's folder, or start"):
        report.write(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["notes.md"]


def test_half_written_lines_are_left_out_and_named(run_folder: Path) -> None:
    for name in ("metrics.jsonl", "samples.jsonl"):
        path = run_folder / "grpo" / name
        path.write_bytes(path.read_bytes()[:-40])
    page = load(report.write(run_folder))
    assert "step 29 of 40" in page.text
    assert "1 unreadable line in grpo/metrics.jsonl left out." in page.text
    assert "1 unreadable line in grpo/samples.jsonl left out." in page.text
    assert sum(len(group["rows"]) for group in groups(page, "grpo")) == STEPS * PROMPTS * GROUP - 1


def test_a_step_logged_twice_counts_once(run_folder: Path) -> None:
    path = run_folder / "sft" / "metrics.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    write_lines(path, [*rows, rows[-1] | {"loss": 123.0}])
    page = load(report.write(run_folder))
    assert "21.6k tokens trained" in page.text
    assert "→ 123" in page.text
