"""The report: complete where the run is, honest where it is not, inert whatever the model wrote."""

import html.parser
import json
import math
import random
import re
from itertools import pairwise
from pathlib import Path

import pytest

from align import report
from align.report import charts, curves, samples

STEPS, PROMPTS, GROUP, PROBLEMS = 30, 4, 8, 200
EVIL = (
    "<think></script><script>alert(1)</script></think>"
    "<answer><img src=x onerror=alert(2)>\u2028\u2029 & \ud800 \x00 <!--<script></answer>"
)


class Page(html.parser.HTMLParser):
    """What a browser would find: elements with their attributes, and the text of each script."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: dict[str, str] = {}
        self.words: list[str] = []
        self._inside: str | None = None
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag in ("script", "style"):
            self._inside = dict(attrs).get("id") or tag
            self.scripts[self._inside] = ""

    def handle_endtag(self, tag: str) -> None:
        if tag in ("script", "style"):
            self._inside = None

    def handle_data(self, data: str) -> None:
        if self._inside:
            self.scripts[self._inside] += data
        else:
            self.words.append(data)

    def tags(self, name: str) -> list[dict[str, str | None]]:
        return [attrs for tag, attrs in self.elements if tag == name]

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())


def load(path: Path) -> Page:
    return Page(path.read_text(encoding="utf-8"))


def write_lines(path: Path, rows: list[dict]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def write_json(path: Path, value: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value, indent=1), encoding="utf-8")


def completion(rng: random.Random, a: int, b: int, c: int, right: bool) -> str:
    total = a + b * c + (0 if right else rng.choice([-10, -1, 1, 7]))
    steps = f"First, {b} * {c} = {b * c}.\nNext, {a} + {b * c} = {total}."
    if rng.random() < 0.2:
        steps = "Multiplication comes before addition.\n" + steps
    return f"<think>\n{steps}\n</think>\n<answer>{total}</answer>"


def group_rows(rng: random.Random, step: int, prompt: int, skill: float) -> list[dict]:
    a, b, c = (rng.randint(2, 30) for _ in range(3))
    rows = []
    for sample in range(GROUP):
        right, neat = rng.random() < skill, rng.random() < 0.95
        text = completion(rng, a, b, c, right)
        rows.append(
            {
                "step": step,
                "prompt_index": rng.randint(0, 9999) if sample == 0 else rows[0]["prompt_index"],
                "sample": sample,
                "prompt": f"What is {a} + {b} * {c}? Think first, then answer.",
                "completion": text if neat else text.replace("</answer>", ""),
                "solution": str(a + b * c),
                "reward": right + 0.5 * neat,
                "parts": {"accuracy": float(right), "format": float(neat)},
                "correct": float(right),
                "length": len(text) // 3,
                "truncated": not neat,
                "outcome": "ok" if rng.random() < 0.98 else "timeout",
            }
        )
    mean = sum(row["reward"] for row in rows) / GROUP
    std = math.sqrt(sum((row["reward"] - mean) ** 2 for row in rows) / (GROUP - 1)) or 1.0
    return [row | {"advantage": (row["reward"] - mean) / std} for row in rows]


def grpo_row(rng: random.Random, step: int) -> dict:
    def noise(scale: float) -> float:
        return rng.gauss(0, scale)

    skill = 0.4 + 0.2 * step / STEPS
    sample, score, train, sync = 7 + noise(0.4), 0.1, 15 + noise(1), 0.2
    return {
        "step": step,
        "steps": 40,
        "time": 1_795_000_000 + 25 * step,
        "loss": noise(0.01),
        "grad_norm": abs(0.8 + noise(0.15)),
        "lr": 5e-6 * min(1, step / 4),
        "tokens": 6000 + round(noise(300)),
        "reward": skill + 0.49 + noise(0.04),
        "reward/accuracy": skill + noise(0.04),
        "reward/format": min(1, 0.97 + noise(0.02)),
        "reward_std": 0.4 + noise(0.02),
        "accuracy": skill + noise(0.04),
        "length": 52 + noise(2),
        "truncated": max(0, 0.02 + noise(0.02)),
        "dead_groups": min(1, max(0, 0.3 + 0.4 * step / STEPS + noise(0.08))),
        "kl": 0.002 * step + abs(noise(0.003)),
        "entropy": 0.35 - 0.004 * step + noise(0.01),
        "clip_fraction": abs(noise(0.004)),
        "mismatch/mean": 0.045 + noise(0.002),
        "mismatch/truncated": 0.001,
        "layer_norm/last": 3 + noise(0.2),
        "seconds/sample": sample,
        "seconds/score": score,
        "seconds/train": train,
        "seconds/sync": sync,
        "seconds/total": sample + score + train + sync + 0.6,
    }


def evaluation(out: Path, rng: random.Random, label: str, skill: float, neat: float = 0.99) -> None:
    rows = []
    for row in range(PROBLEMS):
        # The same problems are hard for every model: that is what pairing is for.
        strict = int(random.Random(row).random() * 0.7 + rng.random() * 0.3 < skill)
        rows.append(
            {
                "row": row,
                "prompt": f"What is {row} + 2?",
                "solution": str(row + 2),
                "completion": "…",
                "strict": strict,
                "lenient": max(strict, int(rng.random() < 0.03)),
                "format": int(rng.random() < neat),
                "length": 50,
            }
        )
    counts = {
        name: {"successes": sum(row[name] for row in rows), "n": PROBLEMS}
        for name in ("strict", "lenient", "format")
    }
    summary = {"label": label, "model": f"{out}/{label}/model", "data": "arithmetic"}
    write_json(
        out / "evaluations" / f"{label}.json",
        summary | {"n": PROBLEMS, "temperature": 0.0, "seconds": 9.0, "length": 51.3} | counts,
    )
    write_lines(out / "evaluations" / f"{label}.jsonl", rows)


@pytest.fixture
def run_folder(tmp_path: Path) -> Path:
    """A finished SFT and a GRPO that still runs, with the arithmetic demo's figures."""
    rng = random.Random(0)
    out = tmp_path / "runs" / "demo"
    write_json(out / "recipe.json", {"recipe": "smollm2", "stages": ["sft", "grpo", "polish"]})
    write_json(out / "sft" / "config.json", {"kind": "sft", "optim": {"lr": 5e-5}, "epochs": 2})
    sft = [
        {
            "step": step,
            "steps": 12,
            "time": 1_794_999_000 + 2 * step,
            "loss": 2.2 * 0.75**step + 0.3,
            "entropy": 0.4 + 0.6 / step,
            "lr": 5e-5 * (1 - step / 12),
            "tokens": 1800,
            "seconds": 2.1,
        }
        for step in range(1, 13)
    ]
    write_lines(out / "sft" / "metrics.jsonl", sft)
    (out / "sft" / "model").mkdir()
    write_json(out / "grpo" / "config.json", {"kind": "grpo", "model": "@sft", "beta": 0.04})
    write_lines(
        out / "grpo" / "metrics.jsonl", [grpo_row(rng, step) for step in range(1, STEPS + 1)]
    )
    sampled = []
    for step in range(1, STEPS + 1):
        for prompt in range(PROMPTS):
            sampled += group_rows(rng, step, prompt, 0.4 + 0.2 * step / STEPS)
    write_lines(out / "grpo" / "samples.jsonl", sampled)
    evaluation(out, rng, "base", 0.02, neat=0.0)
    evaluation(out, rng, "sft", 0.42)
    evaluation(out, rng, "grpo", 0.6)
    return out


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

    assert set(page.scripts) == {"style", "samples-1", "script"}
    assert not page.tags("img")
    assert not [attrs for _, attrs in page.elements if any(name.startswith("on") for name in attrs)]
    embedded = page.scripts["samples-1"]
    assert not set(embedded) & set("<>&\u2028\u2029")
    group = json.loads(embedded)["groups"][0]
    assert (group["prompt"], group["solution"]) == (EVIL, EVIL)
    assert group["rows"][0]["completion"] == EVIL
    assert "innerHTML" not in page.scripts["script"]
    assert "insertAdjacentHTML" not in page.scripts["script"]


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
    assert (
        f"sft → grpo (arithmetic, strict): +{gained:.1f} points, {better} better, {worse} worse"
        in text
    )
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


@pytest.mark.parametrize("keep", ["sft", "grpo", "evaluations", None])
def test_any_part_of_a_run_is_enough(run_folder: Path, tmp_path: Path, keep: str | None) -> None:
    part = tmp_path / "part"
    part.mkdir()
    if keep:
        (run_folder / keep).rename(part / keep)
    page = load(report.write(part))
    assert ("Before and after" in page.text) == (keep == "evaluations")
    assert ("Completions" in page.text) == (keep == "grpo")
    assert ("Loss" in page.text) == (keep in ("sft", "grpo"))
    if keep != "evaluations":
        assert report.table(part).startswith("No evaluations in")


def test_missing_folder_says_what_to_type(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"scripts/run.py --recipe NAME --out .*nowhere"):
        report.write(tmp_path / "nowhere")


def test_half_written_lines_are_left_out_and_named(run_folder: Path) -> None:
    for name in ("metrics.jsonl", "samples.jsonl"):
        path = run_folder / "grpo" / name
        path.write_bytes(path.read_bytes()[:-40])
    page = load(report.write(run_folder))
    assert "step 29 of 40" in page.text
    assert "1 unreadable line in grpo/metrics.jsonl left out." in page.text
    assert "1 unreadable line in grpo/samples.jsonl left out." in page.text
    groups = json.loads(page.scripts["samples-2"])["groups"]
    assert sum(len(group["rows"]) for group in groups) == STEPS * PROMPTS * GROUP - 1


def test_a_step_logged_twice_counts_once(run_folder: Path) -> None:
    path = run_folder / "sft" / "metrics.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    write_lines(path, [*rows, rows[-1] | {"loss": 123.0}])
    page = load(report.write(run_folder))
    assert "21.6k tokens trained" in page.text
    assert "→ 123" in page.text


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
    row = json.loads(page.scripts["samples-1"], parse_constant=pytest.fail)["groups"][0]["rows"][0]
    assert row["reward"] == "nan"
    assert row["advantage"] == "-inf"
    assert row["parts"] == {"a": None, "b": "nan"}
    assert row["completion"] == ""
    panel = curves.panels(rows)["Reward"][0]
    assert panel.steps == list(range(2, 31, 2))
    assert "nan" not in charts.curve(panel)


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
    drawn = charts.curve(curves.panels(metrics)["Optimization"][0]), charts.stack(split)
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
    assert charts.short(value) == text


def test_large_runs_keep_first_last_and_evenly_spaced_steps(run_folder: Path) -> None:
    path = run_folder / "grpo" / "samples.jsonl"
    whole = samples.read_samples(path, budget=10**9)
    assert whole is not None
    assert (whole.completions, whole.notes) == (STEPS * PROMPTS * GROUP, [])
    budget = len(whole.json) // 2
    half = samples.read_samples(path, budget=budget)
    assert half is not None
    assert 0.7 * budget < len(half.json) <= budget + 1000
    steps = sorted({group["step"] for group in json.loads(half.json)["groups"]})
    gaps = {later - earlier for earlier, later in pairwise(steps)}
    assert (steps[0], steps[-1]) == (1, STEPS)
    assert max(gaps) - min(gaps) <= 1
    assert f"{half.completions:,} of {STEPS * PROMPTS * GROUP:,} completions" in half.notes[0]
    assert f"{len(steps)} of {STEPS} steps" in half.notes[0]


def test_huge_steps_lose_prompts_before_they_lose_steps(run_folder: Path) -> None:
    path = run_folder / "grpo" / "samples.jsonl"
    small = samples.read_samples(path, budget=30_000)
    assert small is not None
    groups = json.loads(small.json)["groups"]
    assert len({group["step"] for group in groups}) == samples.FEWEST_STEPS
    assert len(small.json) < 31_000
    assert "prompts of those steps left out" in small.notes[0]


def test_endless_completion_keeps_its_beginning_and_its_end(run_folder: Path) -> None:
    path = run_folder / "grpo" / "samples.jsonl"
    row = json.loads(path.read_text().splitlines()[0])
    write_lines(path, [row | {"completion": "A" + "<" * 1_000_000 + "Z"} for _ in range(64)])
    page_path = report.write(run_folder)
    assert page_path.stat().st_size < 5_000_000
    rows = json.loads(load(page_path).scripts["samples-2"])["groups"][0]["rows"]
    assert rows[0]["completion"].startswith("A<")
    assert rows[0]["completion"].endswith("<Z")
    assert "980,002 characters left out" in rows[0]["completion"]


@pytest.mark.parametrize(("n", "count"), [(10, 3), (100, 7), (5, 5), (3, 9), (9, 1)])
def test_spaced(n: int, count: int) -> None:
    chosen = samples.spaced(n, count)
    assert len(chosen) == len(set(chosen)) == min(n, count)
    assert chosen[-1] == n - 1
    assert chosen[0] == 0 or count == 1
