"""Does the chat template say what the rows say? The prompt's ids begin the whole's, nothing of the
conversation is dropped, nothing is added that changes from day to day.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from typing import Any

from jinja2 import TemplateError

import data
import rewards
from align.preflight.contents import spoken
from align.preflight.subject import SAMPLING, Subject
from align.terminal.findings import Findings
from data.prompts import worked
from rewards.format import TAGS

FEW = 0.01  # rows that may be left out without a word
MOST = 0.5
PROBES = 8
# What the templates of common models begin and end turns with.
MARKS = re.compile(
    r"<\|im_(?:start|end)\|>|\[/?INST\]|<</?SYS>>|<\|(?:start|end)_header_id\|>|<\|eot_id\|>"
    r"|<(?:start|end)_of_turn>|<\|(?:user|assistant|system)\|>|<｜(?:User|Assistant)｜>"
)


def check(subject: Subject, found: Findings) -> None:
    _rendered(subject, found)
    _tags(subject, found)
    if not subject.read:
        return
    fine = {reading.row for reading in subject.read}
    rows = [row for place, row in subject.drawn if place in fine]
    prompts = [prompt for row in rows if isinstance(prompt := _conversation(row), list)]
    if prompts:
        # A template may fail on what it is asked here and no row asks of it.
        with suppress(data.chat.RenderError):
            _history(subject, found, prompts)
        with suppress(data.chat.RenderError):
            _markup(subject, found, prompts[0])
        _round_trip(subject, found, prompts)
        with suppress(data.chat.RenderError):
            _date(subject, found, prompts[0])
        with suppress(data.chat.RenderError):
            _turns(subject, found, prompts[0])


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
    if not dropped:
        return
    # An answer's reasoning is left out of the history on purpose; what was asked is never.
    asked = [turn for turn in dropped if turn[0] in ("system", "user")]
    role, content = (asked or dropped)[0]
    found.report(
        "chat template",
        f"the template of {subject.path} rewrites or drops turns of the prompt, such as the "
        f"{role}'s {content[:60]!r}",
        "put what the model is to read into turns that the template writes, or set another "
        "tokenizer.chat_template",
        certain=bool(asked),
    )


def _text(subject: Subject, prompt: Any, *, generate: bool | None = None) -> str:
    """The rendered conversation without white space. generate: with the generation prompt; as a
    rule where it awaits an answer.
    """
    if generate is None:
        generate = prompt[-1]["role"] != "assistant"
    try:
        text = subject.tokenizer.apply_chat_template(
            list(prompt), tokenize=False, add_generation_prompt=generate
        )
    except Exception as error:  # a template is a program, and may fail in any way
        raise data.chat.RenderError(str(error)) from error
    return "".join(text.split())


def _markup(subject: Subject, found: Findings, prompt: list[Any]) -> None:
    """Chats that were rendered before they were written down: they hold tokens that only a template
    writes, this one or another. Others may well be spoken of, such as <think>.
    """
    asked = [turn | {"content": "probe"} for turn in prompt]
    rendered = _text(subject, asked, generate=False)
    own = [token for token in subject.tokenizer.all_special_tokens if len(token) > 3]
    own = [token for token in own if token in rendered]
    texts = ["\n".join(each.texts) for _, row in subject.drawn if (each := spoken(row)).chat]
    hits = [_mark(text, own) for text in texts]
    count = sum(hit is not None for hit in hits)
    if count <= FEW * len(texts):  # some may speak of such
        return
    token = next(hit for hit in hits if hit)
    whose = "the" if token in own else "another model's"
    said = (
        f"{count:,} of {len(texts):,} rows hold {token!r}, which {whose} chat template writes: "
        "they were put through a chat template before, and would be once more"
    )
    cure = "give messages with the bare text, or prompts as plain strings"
    found.report("chat template", said, cure, certain=count > MOST * len(texts))


def _mark(text: str, own: Sequence[str]) -> str | None:
    """The first token in the text that a template writes."""
    if hit := next((token for token in own if token in text), None):
        return hit
    other = MARKS.search(text)
    return other[0] if other else None


def _turns(subject: Subject, found: Findings, prompt: list[Any]) -> None:
    """What stands between a question and its answer, and after both."""
    turns = prompt[:-1] if prompt[-1]["role"] == "assistant" else prompt
    alone = [turn | {"content": "probe"} for turn in turns]
    whole = [*alone, *data.rows.assistant("answer7253")]
    asked, awaiting = (_text(subject, alone, generate=generate) for generate in (False, True))
    _opened(subject, found, awaiting[len(asked) :] if awaiting.startswith(asked) else "")
    rendered = _text(subject, whole, generate=False)
    before, _, after = rendered.partition("answer7253")
    path = subject.path
    if asked == awaiting and before.startswith(asked) and before != asked:
        found.error(
            "chat template",
            f"the template of {path} writes no generation prompt: the model would have to write "
            f"{before[len(asked) :]!r} itself before every answer",
            "write it at the end of the template, inside {% if add_generation_prompt %}",
        )
    with suppress(data.chat.RenderError):  # which is said of the end tokens
        _, stop = data.chat.stop(subject.tokenizer)
        if after.startswith(stop * 2):
            found.error("chat template", f"the template of {path} writes {stop!r} twice after an "
                        "answer", "write it once in its chat_template.jinja")  # fmt: skip
    begin = subject.tokenizer.bos_token
    if begin and rendered.startswith(begin * 2):
        found.error("chat template", f"the template of {path} begins every chat with {begin!r} "
                    "twice", "write it once in its chat_template.jinja")  # fmt: skip


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


def _opened(subject: Subject, found: Findings, written: str) -> None:
    """A generation prompt that opens the reasoning: a completion closes it, and never has both."""
    opens = TAGS[0] in written and TAGS[1] not in written
    if opens and _asks_for_tags(getattr(subject.config, "reward", None)):
        found.error(
            "tags",
            f"the template of {subject.path} writes {TAGS[0]} at the end of every prompt, so that "
            "a completion begins behind it, and the reward format asks for a whole "
            f"{TAGS[0]} ... {TAGS[1]} in the completion: it would always be 0",
            f"take {TAGS[0]} out of the generation prompt in its chat_template.jinja, or give a "
            "reward of your own for the form",
        )


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
