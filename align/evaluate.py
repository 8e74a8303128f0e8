"""Held-out accuracy: every problem answered, every answer kept, two scores side by side.

`scoring` says what *strict* and *lenient* are, `results` what is made of them.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

import data
from align import models
from align.config import Evaluation
from align.evaluation import results, scoring, trained_on
from align.evaluation.trained_on import TrainingData
from align.files.folder import described, result, weights_of
from align.files.locate import Located
from align.rollout import Engine, Request, Sample, seed_of
from align.rollout.build import build
from align.terminal.progress import console, duration
from data import contamination, judge

BATCH = 256  # completions asked of the sampler at once
REPORTED = 10.0  # seconds between two lines on how far it is


def evaluate(
    config: Evaluation,
    located: Located,
    *,
    label: str,
    out: Path,
    training: Sequence[TrainingData] = (),
) -> dict[str, Any]:
    """Answer `config.data` with the model; write OUT/evaluations/FILE.json and .jsonl.

    training: what the model was trained on, to look for the problems in. Raises DataError,
    EngineError or ModelError for what the user can mend.
    """
    begun = time.perf_counter()
    rows = config.data.rows()
    data.validate.check_rows(rows, "evaluate")
    if config.limit:
        rows = rows.select(range(min(config.limit, len(rows))))
    contaminated = None
    if training:
        contaminated = trained_on.check(list(contamination.prompt_texts(rows)), training, out)
        console.print(trained_on.line(contaminated), markup=False)
    weights = weights_of(located)  # before answering: a stage may write others meanwhile
    path = models.ready(located)
    tokenizer = models.load_tokenizer(path, trust_remote_code=config.trust_remote_code)
    kept, requests = _requests(rows, config, tokenizer)
    engine = _engine(config, path, tokenizer)
    samples = _sampled(engine, requests, config.samples)
    engine.close()
    answers = _answers(rows, kept, samples, tokenizer)
    summary = {
        "label": label,
        "evaluation": config.name,
        "model": located.path,
        "weights": weights,
        "config": described(config),
        "files": data.fingerprint.of_files(config),
        "data": config.data.name,
        "temperature": config.sampling.temperature,
        **results.figures(answers),
        "left_out": len(rows) - len(kept),
        "length": sum(answer["length"] for answer in answers) / len(answers),
        "truncated": sum(answer["truncated"] for answer in answers) / len(answers),
        "contamination": contaminated,
        "seconds": round(time.perf_counter() - begun, 1),
    }
    results.write(result(out, label, config), summary, answers)
    return summary


def _engine(config: Evaluation, path: str, tokenizer: Any) -> Engine:
    trust = config.trust_remote_code
    device = "cuda" if torch.cuda.is_available() else "cpu"
    return build(
        config.engine,
        sampling=config.sampling,
        path=path,
        model=models.load_causal_lm(path, device=device, trust_remote_code=trust)
        if config.engine.kind == "hf"
        else None,
        stop=models.stop_tokens(tokenizer, path),
        trust_remote_code=trust,
        sequences=max(BATCH, config.samples),
        autocast=torch.bfloat16,
    )


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
    # The first answer has the seed that it would have alone.
    more = range(1, config.samples)
    return kept, [
        Request(
            prompt=encoded[i],
            seeds=[seed_of(config.seed, i), *(seed_of(config.seed, i, sample) for sample in more)],
        )
        for i in kept
    ]


def _sampled(engine: Engine, requests: Sequence[Request], samples: int) -> list[list[Sample]]:
    """The answers to each request, with a line now and then on how far it is."""
    size = max(1, BATCH // samples)
    answered: list[list[Sample]] = []
    begun = said = time.monotonic()
    for start in range(0, len(requests), size):
        answered += engine.sample(requests[start : start + size])
        now, done = time.monotonic(), len(answered)
        if now - said >= REPORTED and done < len(requests):
            rate = done / (now - begun)
            left = duration((len(requests) - done) / rate)
            tokens = sum(len(each.ids) for group in answered for each in group) / (now - begun)
            console.print(
                f"answered {done:,} of {len(requests):,} problems  {rate:.2g} a second  "
                f"{tokens:.0f} tokens/s  {left} left"
            )
            said = now
    return answered


def _answers(
    rows: Any, kept: Sequence[int], samples: Sequence[Sequence[Sample]], tokenizer: Any
) -> list[results.Answer]:
    """Every sample with its verdict, those of a problem one after another."""
    drawn = [
        (i, number, sample)
        for i, group in zip(kept, samples, strict=True)
        for number, sample in enumerate(group)
    ]
    texts = [tokenizer.decode(sample.ids, skip_special_tokens=True) for _, _, sample in drawn]
    columns = {
        name: [rows[i][name] for i, _, _ in drawn]
        for name in judge.TELLING
        if name in rows.column_names
    }
    solutions = [rows[i]["solution"] for i, _, _ in drawn]
    verdicts = scoring.verdicts(texts, solutions, columns)
    answers = []
    for (i, number, sample), text, verdict in zip(drawn, texts, verdicts, strict=True):
        prompt = rows[i]["prompt"]
        answers.append(
            {
                "row": i,
                "sample": number,
                "prompt": prompt if isinstance(prompt, str) else prompt[-1]["content"],
                "solution": rows[i]["solution"],
                "completion": text,
                **vars(verdict),
                **judge.telling(rows[i]),
                "length": len(sample.ids),
                "truncated": sample.truncated,
            }
        )
    return answers
