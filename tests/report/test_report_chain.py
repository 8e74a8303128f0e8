"""The chain on the page: its graph, what became of each stage, what each stage brought."""

import json
import re
from pathlib import Path

import pytest
from chain_folders import REASONS, STAGES
from page_parser import load
from run_folders import without_curves, write_json, write_lines

from align import report
from align.report import answers, canvas, charts, evaluations, lineage, samples
from align.report.folder import Stage, read_run
from align.report.kept import read_kept
from align.report.lineage import Edge, Node


def test_the_graph_says_what_became_of_each_stage(chain_folder: Path) -> None:
    without_curves(chain_folder, "rejection")
    graph = lineage.read_graph(read_run(chain_folder))
    assert [(n.name, n.kind, n.parents, n.action, n.why, n.seconds) for n in graph.nodes] == [
        (name, *stage) for name, stage in STAGES.items()
    ]
    page = load(report.write(chain_folder))
    circles = [e["class"] for e in page.tags("circle") if str(e.get("class")).startswith("node")]
    assert circles == [f"node {action.replace(' ', '-')}" for _, _, action, _, _ in STAGES.values()]
    assert len([e for e in page.tags("path") if e.get("class") == "edge"]) == 7
    for words in (
        "ran again optim.lr: 1e-05 -> 2e-05 6 min 52 s",
        "from cold, rejection resumed was interrupted at step 7",
        "student sft from rejection not reached mixed comes first",
    ):
        assert words in page.text, words


def test_edges_that_pass_by_take_lanes_of_their_own() -> None:
    """a → b → c on the trunk, a → c and a → d beside it, b → d beside these."""
    nodes = [
        Node(name=name, kind="", parents=list(parents))
        for name, parents in (("a", ""), ("b", "a"), ("c", "ab"), ("d", "ab"), ("e", ""))
    ]
    found = {(e.start, e.end): e.lane for e in lineage.edges(nodes)}
    assert found == {(0, 1): 0, (0, 2): 1, (0, 3): 1, (1, 2): 0, (1, 3): 2}
    graph = lineage.Graph(nodes=nodes, edges=lineage.edges(nodes))
    assert graph.path(Edge(start=0, end=1, lane=0)) == f"M{graph.trunk:g} 38V90"
    assert graph.height == 5 * lineage.ROW


def test_without_a_chain_the_references_are_the_graph(chain_folder: Path) -> None:
    """From manifests first; from `@stage`, `layers:N:@stage` and FromStage where there is none."""
    (chain_folder / "chain.json").unlink()
    expected = [stage[1] for stage in STAGES.values()]
    expected[-1] = []  # not begun: nothing tells
    graph = lineage.read_graph(read_run(chain_folder))
    assert [node.parents for node in graph.nodes] == expected
    for manifest in chain_folder.glob("*/manifest.json"):
        manifest.unlink()
    write_json(
        chain_folder / "student" / "config.json",
        {
            "model": "layers:14:@mixed | org/model",
            "reward": {"terms": [[1.0, {"model": "@judge"}]]},
        },
    )
    expected[5], expected[6] = ["general"], ["judge", "mixed"]
    graph = lineage.read_graph(read_run(chain_folder))
    assert [node.parents for node in graph.nodes] == expected
    assert {node.action for node in graph.nodes} == {""}


@pytest.mark.parametrize("text", ["{", "[]", '{"nodes": 3}', '{"nodes": [3, {"stage": []}]}'])
def test_a_broken_chain_file_is_survived(chain_folder: Path, text: str) -> None:
    without_curves(chain_folder, "rejection")
    (chain_folder / "chain.json").write_text(text)
    for manifest in chain_folder.glob("*/manifest.json"):
        manifest.write_text('{"parents": 3, "code": ')
    page = load(report.write(chain_folder))
    assert "from cold, rejection" in page.text
    assert "cold/manifest.json is not a JSON object and was left out." in page.text


def test_every_stage_meets_every_evaluation(chain_folder: Path) -> None:
    without_curves(chain_folder, "rejection")
    text = report.write(chain_folder).read_text(encoding="utf-8")
    table = text[text.index('class="stacking overview"') :]
    table = table[: table.index("</table>")]
    rows = [" ".join(re.sub(r"<[^>]*>", " ", row).split()) for row in table.split("<tr>")[2:]]
    assert [row.split()[0] for row in rows] == list(STAGES)
    summary = json.loads((chain_folder / "evaluations" / "mixed.hard.json").read_text())
    for name in ("strict", "lenient"):
        share = summary[name]  # several answers a problem: the summary's own interval
        figures = f"{100 * share['mean']:.1f} % {100 * share['low']:.1f} to "
        assert f"{name} {figures}" in rows[5], name
    for family in ("pass", "maj"):
        share = summary[family]["strict"]["4"]
        assert f"{family}@4 {100 * share['mean']:.1f} %" in rows[5]
    assert rows[5].count("against general") == 2
    assert "n = 200, against cold" in rows[1]
    assert "n = 50 × 4, against cold" in rows[1]
    assert "64 of 256 samples kept (25.0 %)" in rows[2]
    assert "89.5 % of 400 held-out pairs" in rows[4]
    assert rows[6].endswith("not evaluated")
    assert "Contamination: 2 of 50 prompts stand in the training data" in rows[0]
    assert "13 words in a row: gym of cold." in rows[0]


def test_problems_answered_several_times_are_paired_by_their_shares(chain_folder: Path) -> None:
    shares = {}
    for label in ("general", "mixed"):
        by_row: dict[int, list[int]] = {}
        for line in (chain_folder / "evaluations" / f"{label}.hard.jsonl").open():
            row = json.loads(line)
            by_row.setdefault(row["row"], []).append(row["strict"])
        shares[label] = [sum(v) / 4 for v in by_row.values()]
    changed = [a - b for b, a in zip(shares["general"], shares["mixed"], strict=True)]
    line = next(
        line
        for line in report.table(chain_folder).splitlines()
        if line.startswith("general → mixed (hard: gym, strict)")
    )
    better, worse = sum(c > 0 for c in changed), sum(c < 0 for c in changed)
    assert f": {100 * sum(changed) / 50:+.1f} points [".replace("-", "−") in line
    assert f"], {better} better, {worse} worse, p" in line


def test_a_stage_that_did_not_help_is_named(chain_folder: Path) -> None:
    without_curves(chain_folder, "rejection")
    for name in ("", ".hard"):
        rows = (chain_folder / "evaluations" / f"cold{name}.jsonl").read_text()
        (chain_folder / "evaluations" / f"zero{name}.jsonl").write_text(rows)
    page = load(report.write(chain_folder))
    said = re.findall(r"The stage (\w+) did not help: .*? problems\)\.", page.text)
    assert said == ["zero", "zero"]
    assert "no significant difference (+0.0 points, 95 % interval" in page.text


def test_warnings_stand_at_the_top_and_at_their_stage(chain_folder: Path) -> None:
    without_curves(chain_folder, "rejection")
    page = load(report.write(chain_folder))
    top, _, stages = page.text.partition("Chain")
    assert "zero : 1 warning of the watch (shaped part rises)." in top
    assert "shaped part rises step 9 reward/format rises while accuracy falls" in stages
    assert "(reward/format 0.98, accuracy 0.41)" in stages


def test_what_a_stage_was_made_from_is_on_the_page(chain_folder: Path) -> None:
    without_curves(chain_folder, "rejection")
    page = load(report.write(chain_folder))
    assert page.text.count("Made from") == 6
    for words in ("@general weights-of-general", "fingerprint rows-of-mixed", "commit abc1234"):
        assert words in page.text, words
    assert "torch 2.13.0 started 2026-11-18 11:06:40 UTC" in page.text


def test_what_was_kept_adds_up(chain_folder: Path) -> None:
    stage = next(s for s in read_run(chain_folder).stages if s.name == "rejection")
    kept = read_kept(stage)
    assert kept is not None
    counts = {part.name: part.count for part in kept.parts}
    assert counts == {"kept": 64} | {
        name.replace("_", " "): 4 * count
        for name, count in sorted(REASONS.items(), key=lambda item: -item[1])
    }
    assert list(counts)[:2] == ["kept", "wrong"]
    assert sum(counts.values()) == kept.samples == 256
    assert sum(part.share for part in kept.parts) == pytest.approx(1)
    rows = [row | {"samples": 70} for row in stage.metrics]
    more = read_kept(Stage(name="s", path=stage.path, config={}, metrics=rows))
    assert more is not None
    assert more.parts[-2:][0].count + more.parts[-1].count == 24 + 12
    assert {p.name: p.count for p in more.parts}["no reason given"] == 24


def test_logs_share_the_room_by_need() -> None:
    assert samples.budgets([10, 20, 30], 100) == [10, 20, 30]
    assert samples.budgets([500, 10, 400], 100) == [45, 10, 45]
    assert samples.budgets([], 100) == []


def test_problems_are_matched_by_row_and_prompt(tmp_path: Path) -> None:
    write_json(tmp_path / "recipe.json", {"stages": ["a", "b"]})
    for label, second in (("base", "2?"), ("a", "2?"), ("b", "another 2?")):
        rows = [
            {"row": i, "prompt": prompt, "completion": label, "strict": 1}
            for i, prompt in enumerate(("1?", second))
        ]
        share = {"label": label, "data": "d", "strict": {"successes": 2, "n": 2}}
        write_json(tmp_path / "evaluations" / f"{label}.json", share)
        write_lines(tmp_path / "evaluations" / f"{label}.jsonl", rows)
    found, notes = answers.answers(evaluations.read_evaluations(read_run(tmp_path))[0])
    [one] = found
    assert notes == []
    assert (one["models"], one["start"]) == (["base", "a", "b"], 1)
    given = [[len(a) for a in problem["answers"]] for problem in one["problems"]]
    assert given == [[1, 1, 1], [1, 1, 0], [0, 0, 1]]


def test_every_chart_becomes_an_svg_and_a_png(chain_folder: Path, tmp_path: Path) -> None:
    without_curves(chain_folder, "zero")
    rows = (chain_folder / "zero" / "metrics.jsonl").read_text().splitlines()
    kept = {"step", "reward", "reward/format", "tokens", "computed_tokens", "seconds/total"}
    few = [{k: v for k, v in json.loads(row).items() if k in kept} for row in rows]
    write_lines(chain_folder / "zero" / "metrics.jsonl", few)
    (chain_folder / "rejection" / "metrics.jsonl").write_text('{"step": 1, "kept": 4}')
    files = report.pictures(chain_folder, tmp_path / "figures")
    names = {file.stem for file in files}
    assert names == {
        "chain",
        "evaluations-arithmetic",
        "evaluations-hard-gym",
        *(f"zero-{key}" for key in ("reward", "reward-format", "tokens", "computed_tokens")),
        "zero-seconds-split",
        "zero-tokens-split",
        "rejection-kept",
        "rejection-samples-by-fate",
    }
    assert sorted(files) == sorted(f for f in (tmp_path / "figures").iterdir())
    for file in files:
        if file.suffix == ".png":
            assert file.read_bytes().startswith(b"\x89PNG")
        else:
            text = file.read_text()
            assert "var(--" not in text
            assert not re.search("#0102[01]", text)  # no stand-in colour is left
    assert "zero: Tokens per step" in (tmp_path / "figures" / "zero-tokens-split.svg").read_text()
    assert "completions, trained on" in (tmp_path / "figures" / "zero-tokens-split.svg").read_text()


def test_a_pictures_name_stays_in_its_folder(tmp_path: Path) -> None:
    panel_of = {"step": 1, "../../outside": 1.0, "reward/../x": 2.0}
    write_lines(tmp_path / "run" / "grpo" / "metrics.jsonl", [panel_of])
    files = report.pictures(tmp_path / "run", tmp_path / "figures")
    assert {file.parent for file in files} == {tmp_path / "figures"}
    assert not (tmp_path / "outside.svg").exists()


def test_tokens_are_split_into_completions_and_prompts() -> None:
    from align.report import curves

    rows = [{"step": s, "tokens": 60.0, "computed_tokens": 100.0} for s in (1, 2)]
    split = curves.token_split(rows)
    assert split is not None
    assert list(split.parts.values()) == [[60.0, 60.0], [40.0, 40.0]]
    assert curves.token_split([{"step": 1, "tokens": 60.0}]) is None
    assert curves.token_split([{"step": 1, "tokens": 60.0, "computed_tokens": 5.0}]) is None
    assert ">tokens per step<" in canvas.svg(charts.stack(split))
