"""Before and after: order, intervals and paired tests."""

import json
from pathlib import Path

from page_parser import load
from run_folders import PROBLEMS, without_curves, write_json, write_lines

from align import report
from align.report import evaluations
from align.report.folder import read_run


def test_table_and_paired_tests(run_folder: Path) -> None:
    """Order follows the recipe, intervals and tests follow the rows."""
    text = report.table(run_folder)
    lines = text.splitlines()
    assert [line.split()[0] for line in lines[2:5]] == ["base", "sft", "grpo"]
    verdicts = {
        label: [
            json.loads(line)["strict"]
            for line in (run_folder / "evaluations" / f"{label}.jsonl").read_text().splitlines()
        ]
        for label in ("sft", "grpo")
    }
    pairs = list(zip(verdicts["sft"], verdicts["grpo"], strict=True))
    better, worse = pairs.count((0, 1)), pairs.count((1, 0))
    gained = 100 * (better - worse) / PROBLEMS
    said = next(line for line in lines if line.startswith("sft → grpo (arithmetic, strict)"))
    assert f": +{gained:.1f} points [+" in said
    assert f"], {better} better, {worse} worse, p" in said
    assert said.endswith(": significantly better")
    assert f"{100 * sum(verdicts['sft']) / PROBLEMS:.1f} % [" in lines[3]
    page = load(report.write(run_folder))
    assert f"+{gained:.1f} points" in page.text
    assert "base → grpo" not in page.text


def test_rows_are_paired_by_index_and_prompt(run_folder: Path) -> None:
    """Shuffled rows change nothing; other prompts are not paired though their indexes match."""
    before = report.table(run_folder)
    path = run_folder / "evaluations" / "grpo.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    write_lines(path, rows[::-1])
    assert report.table(run_folder) == before
    write_lines(path, [row | {"prompt": "another question"} for row in rows])
    assert "sft → grpo" not in report.table(run_folder)
    assert "base → sft" in report.table(run_folder)


def test_labels_find_their_place_by_the_stage_in_their_path(run_folder: Path) -> None:
    folder = run_folder / "evaluations"
    for old, new in (("base", "z-before"), ("grpo", "a-final")):
        summary = json.loads((folder / f"{old}.json").read_text()) | {"label": new}
        write_json(folder / f"{new}.json", summary)
        (folder / f"{old}.json").unlink()
    lines = report.table(run_folder).splitlines()
    assert [line.split()[0] for line in lines[2:5]] == ["z-before", "sft", "a-final"]


def test_a_label_is_its_own_stages_before_it_names_others(tmp_path: Path) -> None:
    """student-cold is no evaluation of student, nor a model in student-cold/model."""
    stages = ["student", "student-cold", "cold"]
    write_json(tmp_path / "recipe.json", {"stages": stages})
    asked = {
        "student-cold": "",
        "cold-again": "runs/x/student-cold/model",
        "student-on-cold-data": "",
        "before": "runs/x/base",
    }
    for label, model in asked.items():
        share = {"label": label, "model": model, "strict": {"successes": 1, "n": 2}}
        write_json(tmp_path / "evaluations" / f"{label}.json", share)
    found, _ = evaluations.read_evaluations(read_run(tmp_path))
    assert {e.label: e.stage for e in found} == {
        "student-cold": "student-cold",
        "cold-again": "student-cold",
        "student-on-cold-data": "cold",
        "before": None,
    }


def test_results_of_weights_that_are_gone_are_left_out_and_named(run_folder: Path) -> None:
    without_curves(run_folder)
    write_json(run_folder / "sft" / "done.json", {"weights": "sha256:new"})
    folder = run_folder / "evaluations"
    summary = json.loads((folder / "sft.json").read_text())
    own = {"stale": "sha256:old", "fresh": "sha256:new", "part": "4 layers of sha256:new"}
    for label, weights in own.items():
        write_json(folder / f"sft-{label}.json", summary | {"label": label, "weights": weights})
    # A stage of that name in another run is not this one's.
    other = {"label": "other", "weights": "sha256:old", "model": "elsewhere/sft/model"}
    write_json(folder / "sft-other.json", summary | other)
    table = report.table(run_folder)
    assert {line.split()[0] for line in table.splitlines()} >= {"sft", "fresh", "part", "other"}
    assert "stale" not in table
    page = load(report.write(run_folder))
    assert "evaluations/sft-stale.json is of weights that sft has no more" in page.text


def test_any_share_that_a_summary_counts_is_a_column(rlhf_folder: Path) -> None:
    """Data sets that are scored differently do not share a table: no column has a gap."""
    without_curves(rlhf_folder)
    page = load(report.write(rlhf_folder))
    assert "share that a classifier outside the training calls positive" in page.text
    assert "Classifier" in page.text
    table = report.table(rlhf_folder)
    assert "–" not in table
    heads = [line.split("  ")[0] for line in table.splitlines()].count("model")
    columns = [line for line in table.splitlines() if line.startswith("model ")]
    assert heads == 2
    assert ["classifier" in line for line in columns] == [False, True]
    assert "reviews-sft → reviews-ppo (reviews, classifier): +42.0 points" in table
    # More of an unknown share need not be better.
    assert table.count("p = 4.5e−13: significantly higher".replace("p = ", "p\u00a0=\u00a0")) == 1


def test_what_only_looks_like_a_share_is_none(run_folder: Path) -> None:
    path = run_folder / "evaluations" / "grpo.json"
    shares = {
        "odd": {"successes": 9, "n": 3},
        "empty": {"successes": 0, "n": 0},
        "half": {"successes": 0.5, "n": 3},
        "config": {"n": 4},
        "toxic": {"successes": 1, "n": 4},
    }
    write_json(path, json.loads(path.read_text()) | shares)
    first = report.table(run_folder).splitlines()[0]
    assert first.split("[95 %]")[-2].split() == ["toxic"]
    assert not {"odd", "empty", "half", "config"} & set(first.split())


def test_a_problem_answered_twice_counts_once(run_folder: Path) -> None:
    """By its share of right answers: with one right and one wrong it is half a gain or a loss."""
    without_curves(run_folder)
    path = run_folder / "evaluations" / "grpo.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    before = [json.loads(line)["strict"] for line in path.with_name("sft.jsonl").open()]
    gained = sum(row["strict"] for row in rows) - sum(before)
    write_lines(path, [*rows, rows[0] | {"strict": 1 - rows[0]["strict"]}])
    gained += 0.5 - rows[0]["strict"]
    said = report.table(run_folder)
    assert f"sft → grpo (arithmetic, strict): +{100 * gained / PROBLEMS:.1f} points [+" in said
    page = load(report.write(run_folder))
    assert f"{PROBLEMS} shared" in page.text
