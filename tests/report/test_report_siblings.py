"""Which evaluations are put side by side: a stage with its parent, siblings with each other."""

import json
import random
from pathlib import Path

import pytest
from page_parser import load
from run_folders import evaluation, without_curves, write_json, write_lines

from align import report
from align.evaluation.statistics import paired
from align.report import comparisons, evaluations
from align.report.folder import read_run


def names(out: Path) -> list[str]:
    run = read_run(out)
    found = comparisons.changes(evaluations.read_evaluations(run)[0], run)
    return [change.name for change in found]


def stage(out: Path, name: str, model: str) -> None:
    write_json(out / name / "config.json", {"kind": "grpo", "name": name, "model": model})


def verdicts(out: Path, label: str, right: list[int]) -> None:
    """An evaluation with these verdicts on problems 0, 1, …"""
    rows = [{"row": i, "prompt": str(i), "strict": value} for i, value in enumerate(right)]
    counts = {"successes": sum(right), "n": len(right)}
    summary = {"label": label, "data": "d", "n": len(right), "strict": counts}
    write_json(out / "evaluations" / f"{label}.json", summary)
    write_lines(out / "evaluations" / f"{label}.jsonl", rows)


def test_parents_first_then_siblings(rlhf_folder: Path) -> None:
    assert names(rlhf_folder) == [
        "base → sft",
        "sft → grpo",
        "sft → ppo",
        "ppo against grpo",
        "reviews-sft → reviews-ppo",
    ]


def test_siblings_are_tested_on_the_same_problems(rlhf_folder: Path) -> None:
    right = {
        label: [
            json.loads(line)["strict"]
            for line in (rlhf_folder / "evaluations" / f"{label}.jsonl").read_text().splitlines()
        ]
        for label in ("grpo", "ppo")
    }
    test = paired(right["grpo"], right["ppo"])
    line = next(
        line
        for line in report.table(rlhf_folder).splitlines()
        if line.startswith("ppo against grpo (arithmetic, strict)")
    )
    low, high = (f"{100 * end:+.1f}".replace("-", "−") for end in (test.low, test.high))
    assert f"[{low} to {high}], {test.better} better, {test.worse} worse" in line
    assert line.endswith("no significant difference")
    without_curves(rlhf_folder)
    page = load(report.write(rlhf_folder))
    assert "ppo against grpo both from sft" in page.text
    assert "ppo against grpo, both from sft: no significant difference on arithmetic" in page.text
    assert "equally good" in page.text  # as what it does not mean
    assert "sft → rm, grpo, ppo, dpo" in page.text


def test_words_follow_the_exact_test(tmp_path: Path) -> None:
    """p = 2 · 2⁻⁵ = 0.0625 with five changes of one direction, 0.031 with six."""
    stage(tmp_path, "a", "org/model")
    stage(tmp_path, "b", "@a")
    for changed, words in ((5, "no significant difference"), (6, "significantly worse")):
        verdicts(tmp_path, "a", [1] * 40)
        verdicts(tmp_path, "b", [0] * changed + [1] * (40 - changed))
        line = report.table(tmp_path).splitlines()[-1]
        assert line.startswith(f"a → b (d, strict): −{100 * changed / 40:.1f} points [−")
        assert line.endswith(words)
        assert f"0 better, {changed} worse" in line


def test_a_stage_that_was_not_evaluated_is_passed_over(rlhf_folder: Path) -> None:
    (rlhf_folder / "evaluations" / "sft.json").unlink()
    assert names(rlhf_folder)[:3] == ["base → grpo", "base → ppo", "ppo against grpo"]


def test_a_recipe_of_three_branches_compares_each_two(tmp_path: Path) -> None:
    write_json(tmp_path / "recipe.json", {"stages": ["one", "two", "three", "four"]})
    for name in ("one", "two", "three"):
        stage(tmp_path, name, "org/model")
    stage(tmp_path, "four", "@two")
    for label in ("one", "two", "three", "four"):
        verdicts(tmp_path, label, [0, 1, 1])
    assert names(tmp_path) == [
        "two → four",
        "two against one",
        "three against one",
        "three against two",
    ]
    assert "both from the same model" in load(report.write(tmp_path)).text


def test_like_is_compared_with_like(rlhf_folder: Path) -> None:
    """A second evaluation of a stage, sampled otherwise, meets its own kind and no other."""
    rng = random.Random(3)
    for label in ("sft-warm", "ppo-warm"):
        evaluation(rlhf_folder, rng, label, 0.5)
        path = rlhf_folder / "evaluations" / f"{label}.json"
        write_json(path, json.loads(path.read_text()) | {"temperature": 1.0})
    found = names(rlhf_folder)
    assert {"sft → ppo", "sft-warm → ppo-warm", "ppo against grpo"} < set(found)
    assert "ppo-warm against grpo" not in found
    assert "sft → ppo-warm" not in found


@pytest.mark.parametrize("model", ["@b", "@nowhere", 7, None])
def test_a_broken_ancestry_is_survived(tmp_path: Path, model: object) -> None:
    """A stage from itself, in a ring, from nowhere, from a number."""
    write_json(tmp_path / "recipe.json", {"stages": ["a", "b"]})
    write_json(tmp_path / "a" / "config.json", {"model": model})
    write_json(tmp_path / "b" / "config.json", {"model": "@a" if model == "@b" else model})
    for label in ("a", "b"):
        verdicts(tmp_path, label, [0, 1])
    expected = {"@b": ["b → a", "a → b"], "@nowhere": ["b against a"]}
    assert names(tmp_path) == expected.get(str(model), ["a → b"])
    assert report.write(tmp_path).is_file()
