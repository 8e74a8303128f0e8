"""Held-out accuracy: every problem answered, every answer kept, two scores side by side.

*strict* wants the right answer in the right form (`<think>…</think><answer>…</answer>` and nothing
else), *lenient* the right answer anywhere. What a method gains in the first alone is format.
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from rich.progress import track

import data
import rewards
from align import models
from align.config import Evaluation
from align.folder import described, identity, write_json
from align.locate import Located
from align.progress import console, duration
from align.rollout import Request, Sample, seed_of
from align.rollout.build import build
from align.statistics import proportion

BATCH = 256  # problems handed to the sampler at once: what the bar moves by


def evaluate(config: Evaluation, located: Located, *, label: str, out: Path) -> dict[str, Any]:
    """Answer `config.data` with the model; write OUT/evaluations/LABEL.json and .jsonl.

    Raises DataError, EngineError or ModelError for what the user can mend.
    """
    begun = time.perf_counter()
    rows = config.data.rows()
    data.validate.check_rows(rows, "evaluate")
    if config.limit:
        rows = rows.select(range(min(config.limit, len(rows))))
    path = models.ready(located)
    trust = config.trust_remote_code
    tokenizer = models.load_tokenizer(path, trust_remote_code=trust)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    engine = build(
        config.engine,
        sampling=config.sampling,
        path=path,
        model=models.load_causal_lm(path, device=device, trust_remote_code=trust)
        if config.engine.kind == "hf"
        else None,
        stop=models.stop_tokens(tokenizer, path),
        trust_remote_code=trust,
        sequences=BATCH,
        autocast=torch.bfloat16,
    )
    kept, requests = _requests(rows, config, tokenizer)
    samples: list[Sample] = []
    starts = range(0, len(requests), BATCH)
    for start in track(starts, f"answering {len(requests):,} problems", console=console):
        answered = engine.sample(requests[start : start + BATCH])
        samples += [group[0] for group in answered]
    engine.close()
    texts = [tokenizer.decode(sample.ids, skip_special_tokens=True) for sample in samples]
    answers = _judged(rows, kept, texts, samples)
    summary = _summary(config, located, label, answers, time.perf_counter() - begun)
    _write(out / "evaluations", label, summary, answers)
    return summary


def _requests(rows: Any, config: Evaluation, tokenizer: Any) -> tuple[list[int], list[Request]]:
    """A request a row whose prompt fits; the rows left out count as wrong in neither score."""
    encoded = [data.chat.prompt_ids(tokenizer, prompt) for prompt in rows["prompt"]]
    limit = config.sampling.max_prompt_tokens
    kept = [i for i, ids in enumerate(encoded) if len(ids) <= limit]
    if not kept:
        raise data.DataError(
            f"every prompt is longer than {limit} tokens; raise --sampling.max-prompt-tokens"
        )
    if len(kept) < len(encoded):
        console.print(f"left out {len(encoded) - len(kept):,} prompts longer than {limit} tokens")
    return kept, [Request(prompt=encoded[i], seeds=[seed_of(config.seed, i)]) for i in kept]


def _judged(
    rows: Any, kept: Sequence[int], texts: Sequence[str], samples: Sequence[Sample]
) -> list[dict[str, Any]]:
    accuracy = rewards.Accuracy().score(texts, solution=[rows[i]["solution"] for i in kept])
    form = rewards.Format().score(texts)
    answers = []
    for i, text, sample, right, formed in zip(kept, texts, samples, accuracy, form, strict=True):
        lenient, formatted = int(right.correct == 1.0), int(formed.value == 1.0)
        prompt = rows[i]["prompt"]
        answers.append(
            {
                "row": i,
                "prompt": prompt if isinstance(prompt, str) else prompt[-1]["content"],
                "solution": rows[i]["solution"],
                "completion": text,
                "strict": lenient * formatted,
                "lenient": lenient,
                "format": formatted,
                "length": len(sample.ids),
                "truncated": sample.truncated,
            }
        )
    return answers


def _summary(
    config: Evaluation,
    located: Located,
    label: str,
    answers: Sequence[dict[str, Any]],
    seconds: float,
) -> dict[str, Any]:
    n = len(answers)
    scores = {
        name: vars(proportion(sum(answer[name] for answer in answers), n))
        for name in ("strict", "lenient", "format")
    }
    return {
        "label": label,
        "model": located.path,
        "weights": identity(located.path),
        "config": described(config),
        "data": config.data.name,
        "n": n,
        "temperature": config.sampling.temperature,
        **scores,
        "length": sum(answer["length"] for answer in answers) / n,
        "truncated": sum(answer["truncated"] for answer in answers) / n,
        "seconds": round(seconds, 1),
    }


def _write(
    folder: Path, label: str, summary: dict[str, Any], answers: Sequence[dict[str, Any]]
) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    lines = (json.dumps(answer, ensure_ascii=False) + "\n" for answer in answers)
    (folder / f"{label}.jsonl").write_bytes("".join(lines).encode("utf-8", "replace"))
    write_json(folder / f"{label}.json", summary)


def line(summary: dict[str, Any]) -> str:
    """The summary in one line for the terminal."""
    parts = [
        f"{name} {share['mean']:.1%} [{share['low']:.1%}, {share['high']:.1%}]"
        for name in ("strict", "lenient", "format")
        for share in [summary[name]]
    ]
    return (
        f"{summary['label']}: {'  '.join(parts)}  n={summary['n']:,}  "
        f"in {duration(summary['seconds'])}"
    )
