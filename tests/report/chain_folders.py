"""A run folder of the whole R1 chain, as the chain runner and its stages leave it."""

import random
from pathlib import Path

from run_folders import evaluation, group_rows, grpo_row, write_json, write_lines

# stage: (kind, parents, action, why, seconds)
STAGES = {
    "cold": ("sft", [], "reused", "nothing has changed", 64.0),
    "zero": ("grpo", ["cold"], "ran again", "optim.lr: 1e-05 -> 2e-05", 412.5),
    "rejection": ("sample", ["zero"], "ran", "zero ran again", 230.0),
    "general": ("sft", ["cold", "rejection"], "resumed", "was interrupted at step 7", 188.0),
    "judge": ("reward_model", [], "reused", "nothing has changed", 75.0),
    "mixed": ("ppo", ["general", "judge"], "ran", "general ran again", 801.0),
    "student": ("sft", ["rejection"], "not reached", "mixed comes first", None),
}
KS = (1, 2, 4)
REASONS = {"wrong": 30, "truncated": 6, "repetition": 3, "near_duplicate": 9}

SEEN = [{"stage": "cold", "name": "gym", "training": 90, "matched": 2}]
DONE = {"rows": 80, "general": 16, "prompts": 32, "prompts_without_a_kept_sample": 5}


def chain(out: Path) -> None:
    """Seven stages, two evaluations, a watch's warning; the last stage was not reached."""
    rng = random.Random(5)
    write_json(out / "recipe.json", {"recipe": "smollm2-r1", "stages": list(STAGES)})
    nodes = [
        {"stage": n, "kind": k, "parents": p, "action": a, "why": w, "seconds": s}
        for n, (k, p, a, w, s) in STAGES.items()
    ]
    write_json(out / "chain.json", {"recipe": "smollm2-r1", "started": 1, "nodes": nodes})
    for name, (kind, parents, action, _, _) in STAGES.items():
        if action == "not reached":
            continue
        write_json(out / name / "config.json", config(name, kind, parents))
        write_json(out / name / "manifest.json", manifest(name, kind, parents))
        write_json(out / name / "done.json", DONE if kind == "sample" else {"steps": 12})
        write_lines(out / name / "metrics.jsonl", rows(rng, kind))
    for name, skill in (("zero", 0.4), ("mixed", 0.6)):
        sampled = [r for s in range(1, 13) for p in range(3) for r in group_rows(rng, s, p, skill)]
        write_lines(out / name / "samples.jsonl", sampled)
    kept = [
        row | {"kept": row["correct"] == 1, "reason": None if row["correct"] == 1 else "wrong"}
        for row in group_rows(rng, 1, 0, 0.5)
    ]
    write_lines(out / "rejection" / "samples.jsonl", kept)
    pairs = {"pairs": 400, "successes": 358}
    write_json(out / "judge" / "heldout.json", pairs)
    watch = {
        "step": 9,
        "rule": "shaped_part_rises",
        "message": "reward/format rises while accuracy falls: lower its weight",
        "figures": {"reward/format": 0.98, "accuracy": 0.41},
    }
    write_lines(out / "zero" / "watch.jsonl", [watch])
    for name, skill in {"cold": 0.3, "zero": 0.5, "general": 0.5, "mixed": 0.62}.items():
        evaluation(out, rng, name, skill)
        several(out, rng, name, skill)


def config(name: str, kind: str, parents: list[str]) -> dict:
    model = "@" + parents[0] if parents else "models/SmolLM2"
    source = {"kind": "FromStage", "stage": "rejection"} if "rejection" in parents else {}
    return {"kind": kind, "name": name, "model": model, "data": source}


def manifest(name: str, kind: str, parents: list[str]) -> dict:
    return {
        "recipe": "smollm2-r1",
        "stage": name,
        "kind": kind,
        "config": config(name, kind, parents),
        "code": {"version": "0.1.0", "commit": "abc1234", "dirty": False},
        "inputs": {"@" + parent: f"weights-of-{parent}" for parent in parents},
        "data": {"name": "arithmetic", "fingerprint": f"rows-of-{name}", "rows": 4000},
        "parents": parents,
        "libraries": {"torch": "2.13.0"},
        "metrics": {},
        "seconds": 64.0,
        "started": 1_795_000_000,
        "finished": 1_795_000_064,
    }


def rows(rng: random.Random, kind: str) -> list[dict]:
    if kind == "sample":
        return [sampled_row(step) for step in range(1, 5)]
    if kind in ("grpo", "ppo"):
        return [grpo_row(rng, step) | {"computed_tokens": 7000.0} for step in range(1, 13)]
    return [
        {"step": s, "steps": 12, "loss": 2 / s, "lr": 1e-5, "tokens": 900, "seconds": 2.0}
        for s in range(1, 13)
    ]


def sampled_row(step: int) -> dict:
    counts = {f"rejected/{name}": count for name, count in REASONS.items()}
    total = {"samples": 64, "kept": 64 - sum(REASONS.values())}
    time = {"seconds/sample": 50.0, "seconds/score": 1.0, "seconds/total": 52.0}
    return {"step": step, "steps": 4, "time": 1_795_000_000 + 60 * step} | total | counts | time


def several(out: Path, rng: random.Random, label: str, skill: float) -> None:
    """A second evaluation, four answers to each of 50 problems."""
    answers = [
        {
            "row": row,
            "sample": sample,
            "prompt": f"What is {row} * 3?",
            "solution": str(3 * row),
            "completion": f"{label} answers {row} for the {sample}. time",
            "strict": int(rng.random() < skill),
            "lenient": int(rng.random() < skill + 0.1),
            "format": 1,
        }
        for row in range(50)
        for sample in range(4)
    ]
    counts = {
        name: {
            "successes": (k := sum(a[name] for a in answers)),
            "n": 200,
            "mean": k / 200,
            "low": max(0.0, k / 200 - 0.1),
            "high": min(1.0, k / 200 + 0.1),
        }
        for name in ("strict", "lenient", "format")
    }
    mean = counts["strict"]["mean"]
    estimates = {
        family: {
            score: {str(k): interval(1 - (1 - mean) ** (k if family == "pass" else 1)) for k in KS}
            for score in ("strict", "lenient")
        }
        for family in ("pass", "maj")
    }
    summary = {
        "label": label,
        "evaluation": "hard",
        "model": f"{out}/{label}/model",
        "data": "gym",
        "n": 50,
        "samples": 4,
        "temperature": 0.8,
        "contamination": {"n": 13, "prompts": 50, "matched": 2, "sources": SEEN}
        if label == "cold"
        else None,
    }
    write_json(out / "evaluations" / f"{label}.hard.json", summary | counts | estimates)
    write_lines(out / "evaluations" / f"{label}.hard.jsonl", answers)


def interval(mean: float) -> dict:
    return {"mean": mean, "low": max(0.0, mean - 0.08), "high": min(1.0, mean + 0.08)}


def many(out: Path, completions: int = 10_000, group: int = 8) -> None:
    """A GRPO stage with that many completions of about 400 characters, no two alike."""
    rng = random.Random(7)
    words = [f"w{rng.randrange(16**5):x}" for _ in range(3000)]
    per_step, sampled = 25, []
    for number in range(completions // group):
        step, prompt = 1 + number // per_step, number % per_step
        for sample in range(group):
            reward = round(rng.random(), 3)
            text = " ".join(rng.choices(words, k=62))
            sampled.append(
                {
                    "step": step,
                    "prompt_index": number % 500,
                    "sample": sample,
                    "prompt": f"Problem {number % 500}: {' '.join(words[prompt : prompt + 20])}",
                    "completion": f"<think>{text}</think><answer>{number}</answer>",
                    "solution": str(number),
                    "reward": reward,
                    "parts": {"accuracy": float(reward > 0.5), "format": 1.0},
                    "correct": float(reward > 0.5),
                    "advantage": reward - 0.5,
                    "length": 90,
                    "truncated": False,
                    "outcome": "ok",
                }
            )
    sampled[4321]["completion"] += " The Needle in the hay."
    write_json(out / "grpo" / "config.json", {"kind": "grpo", "name": "grpo"})
    write_lines(out / "grpo" / "metrics.jsonl", [grpo_row(rng, step) for step in range(1, 51)])
    write_lines(out / "grpo" / "samples.jsonl", sampled)
