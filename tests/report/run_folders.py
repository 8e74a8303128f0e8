"""Run folders as training leaves them, made by hand."""

import json
import math
import random
from pathlib import Path

STEPS, PROMPTS, GROUP, PROBLEMS = 30, 4, 8, 200


def write_lines(path: Path, rows: list[dict]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def write_json(path: Path, value: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value, indent=1), encoding="utf-8")


def without_curves(out: Path, *but: str) -> None:
    """Every stage's log away but that of some: curves are slow to draw."""
    for log in out.glob("*/metrics.jsonl"):
        if log.parent.name not in but:
            log.unlink()


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
    """Verdicts on PROBLEMS problems that are easy or hard for every model alike."""
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


def demo(out: Path) -> None:
    """A finished SFT and a GRPO that still runs, with the arithmetic demo's figures."""
    rng = random.Random(0)
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
