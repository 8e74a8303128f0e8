"""Do the tokenizer and the models speak of the same tokens: the stage's own, the teacher, the
critic, the reward models? From the tokenizers and the config.json alone.
"""

from __future__ import annotations

from contextlib import suppress

import data
from align import models
from align.config import Distill, Rollouts, Sample
from align.files.folder import identity
from align.preflight.knowing import made
from align.preflight.subject import Subject
from align.references import loading
from align.terminal.findings import Findings
from align.vocabulary import check_same_tokenizer, check_teacher

SPARE = 1  # tokens beyond the embedding that nobody uses: Gemma 3's text models have one
SHARE = 0.9  # of the embedding that a tokenizer of the same model has at least


def check(subject: Subject, found: Findings) -> None:
    _embedding(subject, found)
    for cure, problem in _others(subject):
        found.error("vocabulary", problem, cure)


def _embedding(subject: Subject, found: Findings) -> None:
    text = subject.model_config.get_text_config()
    rows, tokens = getattr(text, "vocab_size", None), len(subject.tokenizer)
    if rows is None:
        return
    said = (
        f"the tokenizer of {subject.path} has {tokens:,} tokens and the model's embedding "
        f"{rows:,} rows"
    )
    used = _highest(subject)
    if tokens > rows and (tokens > rows + SPARE or used >= rows):
        found.error(
            "vocabulary",
            f"{said}: it is another model's, or tokens were added to it alone"
            + (f"; id {used:,} is used" if used >= rows else ""),
            "put the model's own tokenizer files there, or resize its embedding "
            "(model.resize_token_embeddings) and save it",
        )
    elif tokens > rows:
        spare = subject.tokenizer.convert_ids_to_tokens(rows)
        found.note("vocabulary", f"{said}; {spare!r} is used nowhere")
    elif tokens < SHARE * rows and not made(subject.config):
        found.warning(
            "vocabulary",
            f"{said}, many more: is it this model's tokenizer?",
            "put the model's own tokenizer files there",
        )


def _highest(subject: Subject) -> int:
    """The highest id in the drawn rows as they are rendered, or that ends or pads a sequence."""
    tokenizer = subject.tokenizer
    used = [tokenizer.eos_token_id, tokenizer.pad_token_id, tokenizer.bos_token_id]
    with suppress(data.chat.RenderError):  # which is said of the end tokens
        used += data.chat.stop_ids(tokenizer)
    for each in subject.read:
        used += [max(ids, default=0) for ids in (each.prompt, *each.answers)]
    return max((i for i in used if i is not None), default=0)


def _others(subject: Subject) -> list[tuple[str, str]]:
    """Cure and problem of each further model that does not fit."""
    config, tokenizer = subject.config, subject.tokenizer
    trust = config.trust_remote_code
    found = []

    def look(flag: str, check: object, *args: object, **options: object) -> None:
        try:
            check(*args, **options)  # type: ignore[operator]
        except models.ModelError as error:
            found.append((f"give another with {flag}", str(error)))

    teacher = getattr(config, "teacher", "")
    if isinstance(config, Distill) and (path := subject.place(teacher)):
        look("--teacher", check_teacher, tokenizer, path=path)
        if identity(path) == identity(subject.path):
            said = f"the teacher {teacher} has the student's own weights: there is nothing to learn"
            found.append(("give another with --teacher", said))
    if path := subject.place(getattr(config, "critic_model", "")):
        look("--critic-model", models.check_classifier, path, trust_remote_code=trust)
        look("--critic-model", check_same_tokenizer, tokenizer, path=path)
    if isinstance(config, Rollouts | Sample):
        for reward in loading(config.reward):
            path = subject.place(reward.model)
            if path is None:
                continue
            look("ModelReward(model=…)", models.check_classifier, path)
            if not reward.own_tokenizer:
                look("ModelReward(model=…, own_tokenizer=True)", check_same_tokenizer, tokenizer,
                     path=path)  # fmt: skip
    kinds = subject.model_config.architectures or []
    if config.writes == "policy" and any(kind.endswith("SequenceClassification") for kind in kinds):
        said = f"{subject.path} is a classifier, such as a reward model, and writes no text"
        found.append(("give a causal language model with --model", said))
    return found
