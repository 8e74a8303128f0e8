"""Does the chat template say what the rows say? The prompt's ids begin the whole's, nothing of the
conversation is dropped, nothing is added that changes from day to day.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from jinja2 import TemplateError

import data
import rewards
from align.findings import Findings
from align.preflight.subject import SAMPLING, Subject
from data.prompts import worked
from rewards.format import TAGS

FEW = 0.01  # rows that may be left out without a word
MOST = 0.5
PROBES = 8


def check(subject: Subject, found: Findings) -> None:
    _rendered(subject, found)
    _tags(subject, found)
    if not subject.read:
        return
    prompts = [prompt for _, row in subject.drawn if isinstance(prompt := _conversation(row), list)]
    if prompts:
        _history(subject, found, prompts)
        _markup(subject, found, prompts)
        _round_trip(subject, found, prompts)
        _date(subject, found, prompts[0])


def _rendered(subject: Subject, found: Findings) -> None:
    refused = [reading for reading in subject.readings if reading.refused]
    if not refused:
        return
    name, count, first = subject.config.data.name, len(refused), refused[0]
    said = (
        f"{count:,} of {len(subject.readings):,} rows of {name} cannot be rendered with the "
        f"tokenizer of {subject.path}, the {data.rows.nth(first.row)} for one: {first.refused}"
    )
    # Pairs that cannot be rendered are left out by the stage; elsewhere one is the end.
    leaves_out = subject.config.kind in ("dpo", "kto", "reward_model")
    if not leaves_out or count > MOST * len(subject.readings):
        found.error("chat template", said, "mend the rows or tokenizer.chat_template")
    elif count > FEW * len(subject.readings):
        found.warning("chat template", said, "these are left out; mend or drop them")


def _conversation(row: Mapping[str, Any]) -> Any:
    """The prompt, or a whole chat."""
    return row["prompt"] if row.get("prompt") is not None else row.get("messages")


def _history(subject: Subject, found: Findings, prompts: list[Any]) -> None:
    """Turns of the conversation that do not come out of the template as they went in."""
    dropped = [
        (turn["role"], turn["content"])
        for prompt in prompts[:PROBES]
        for text in [_text(subject, prompt)]
        for turn in prompt
        if "".join((turn["content"] or "").split()) not in text
    ]
    if dropped:
        role, content = dropped[0]
        found.warning(
            "chat template",
            f"the template of {subject.path} rewrites or drops turns of the prompt, such as the "
            f"{role}'s {content[:60]!r}",
            "give rows that hold what the model is to read, or another tokenizer.chat_template",
        )


def _text(subject: Subject, prompt: Any, *, generate: bool | None = None) -> str:
    """The rendered conversation without white space. generate: with the generation prompt; as a
    rule where it awaits an answer.
    """
    if generate is None:
        generate = prompt[-1]["role"] != "assistant"
    text = subject.tokenizer.apply_chat_template(
        list(prompt), tokenize=False, add_generation_prompt=generate
    )
    return "".join(text.split())


def _markup(subject: Subject, found: Findings, prompts: list[Any]) -> None:
    """Conversations that were rendered before they were written down: they hold tokens that only
    the template writes. Others may well be spoken of, such as <think>.
    """
    asked = [turn | {"content": "probe"} for turn in prompts[0]]
    rendered = _text(subject, asked, generate=False)
    special = [token for token in subject.tokenizer.all_special_tokens if len(token) > 3]
    special = [token for token in special if token in rendered]
    texts = ["\n".join(turn["content"] or "" for turn in prompt) for prompt in prompts]
    hits = [next((token for token in special if token in text), None) for text in texts]
    count = sum(hit is not None for hit in hits)
    if not count:
        return
    token = next(hit for hit in hits if hit)
    said = (
        f"{count:,} of {len(texts):,} prompts hold {token!r}, which the chat template writes: they "
        "were put through a chat template before, and would be once more"
    )
    cure = "give messages with the bare text, or prompts as plain strings"
    (found.error if count > MOST * len(texts) else found.warning)("chat template", said, cure)


def _tags(subject: Subject, found: Findings) -> None:
    """Tags that are special tokens: what is sampled is decoded without those."""
    if not subject.samples:
        return
    lost = [
        tag
        for tag in TAGS
        if _decoded(subject, tag, bare=False) and not _decoded(subject, tag, bare=True)
    ]
    if not lost:
        return
    said = (
        f"{' and '.join(lost)} are special tokens of the tokenizer of {subject.path}, which are "
        "left out of a completion's text"
    )
    cure = (
        'make them ordinary ones: "special": false of each in tokenizer.json and '
        "tokenizer_config.json, and not among additional_special_tokens"
    )
    if _asks_for_tags(getattr(subject.config, "reward", None)):
        found.error("tags", f"{said}: the reward would never see the form that it asks for", cure)
    else:
        found.warning("tags", f"{said}: rewards and readers never see them", cure)


def _decoded(subject: Subject, tag: str, *, bare: bool) -> bool:
    """Whether a tag that is sampled is in the text. bare: as a reward is given it."""
    ids = subject.tokenizer(tag, add_special_tokens=False)["input_ids"]
    return tag in subject.tokenizer.decode(ids, skip_special_tokens=bare)


def _asks_for_tags(reward: Any) -> bool:
    return isinstance(reward, rewards.Format) or any(
        map(_asks_for_tags, getattr(reward, "inner", ()))
    )


def _round_trip(subject: Subject, found: Findings, prompts: list[Any]) -> None:
    """Of rows without an answer, with one in the form that training wants. Where rows have answers
    of their own, rendering them has shown it.
    """
    if not isinstance(subject.config, SAMPLING):
        return
    answer = data.rows.assistant(worked("The answer follows.", "7"))
    for prompt in prompts[:PROBES]:
        if prompt[-1]["role"] == "assistant":
            continue
        try:
            data.chat.render(subject.tokenizer, {"prompt": prompt, "completion": answer})
        except (data.chat.RenderError, TemplateError) as error:
            found.warning(
                "chat template",
                f"a prompt and its answer do not render as the prompt alone does: {error}",
                "what is sampled cannot be trained on later with this tokenizer.chat_template",
            )
            return


def _date(subject: Subject, found: Findings, prompt: Any) -> None:
    template = str(subject.tokenizer.chat_template)
    now = datetime.now()
    dates = [now.strftime(form) for form in ("%d%b%Y", "%Y-%m-%d", "%B%d,%Y", "%d%B%Y")]
    if "strftime_now" in template and any(date in _text(subject, prompt) for date in dates):
        found.warning(
            "chat template",
            f"the template of {subject.path} writes today's date into every prompt: a run that is "
            "resumed tomorrow sees other prompts",
            "write a fixed date in place of strftime_now in its chat_template.jinja",
        )
