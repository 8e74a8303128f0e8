"""What the rows' texts say, where they are of the right type and cannot be meant: messages written
out as text, another template's markup, prompts without their question, answers that begin with
their prompt, golds that are none, words that the tokenizer does not know.
"""

from __future__ import annotations

import ast
import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import rewards
from align.config import Rollouts, Sample, Sft
from align.preflight.subject import SAMPLING, Subject
from align.terminal.findings import Findings
from data.reward_scores import leaves

MOST = 0.5
FEW = 0.01
SOME = 0.1
LEAST = 8  # rows from which on their being alike is no accident
ENOUGH = 16
LOOKED_AT = 128  # rows whose tokens are looked at
UNREAD = 0.05  # of the tokens: what is left of such text is not what was said
SIDES = ("completion", "chosen", "rejected")
# What a missing value becomes where a table is written out as text.
MISSING = ("nan", "null", "undefined")
A_SENTENCE = 20  # characters from which on a text is more than a label
# What other models end a text with.
ENDS = ("</s>", "<eos>", "[EOS]", "<|endoftext|>", "<|end_of_text|>", "<|end|>", "<|eot_id|>",
        "<|im_end|>", "<end_of_turn>", "<｜end▁of▁sentence｜>")  # fmt: skip
MESSAGE = ({"role", "content"}, {"from", "value"})
# Not what LaTeX writes, such as \boxed{answer} and x^{n}.
_PLACEHOLDER = re.compile(r"(?<![\\\w}^_{])\{\{?\s*[A-Za-z_]\w*\s*\}?\}")
_CODE = re.compile(r"\b(?:def|class|function|func|fn|public|import|include)\b|[{};]|:\s*$")
_SENTENCE = re.compile(r"[.?!。？！]$")


@dataclass(frozen=True, kw_only=True)
class Spoken:
    """A row's texts. asked: the last turn of the prompt. before: the turns in front of it.
    answers: of each column, the first text that answers.
    """

    asked: str
    before: Sequence[str]
    answers: Mapping[str, str]
    chat: bool

    @property
    def texts(self) -> list[str]:
        return [*self.before, self.asked, *self.answers.values()]


def spoken(row: Mapping[str, Any], *, answered: bool = True) -> Spoken:
    """Of a row of any stage. answered: with what its columns answer; a column that the stage does
    not read may hold anything.
    """
    prompt, answers = row.get("prompt"), {}
    if prompt is None:
        turns = row["messages"]
        prompt, answers["messages"] = turns[:-1], turns[-1]["content"]
    for side in SIDES if answered else ():
        if (text := _first(row.get(side))) is not None:
            answers[side] = text
    if isinstance(prompt, str):
        return Spoken(asked=prompt, before=(), answers=answers, chat=False)
    texts = [turn["content"] for turn in prompt] or [""]
    return Spoken(asked=texts[-1], before=texts[:-1], answers=answers, chat=True)


def _first(value: Any) -> str | None:
    """A text, or the first message's; None of what is neither."""
    if isinstance(value, str):
        return value
    turn = value[0] if isinstance(value, list) and value else None
    return turn.get("content") if isinstance(turn, dict) else None


def check(subject: Subject, found: Findings) -> None:
    # What is sampled from has its answers yet to come, whatever else stands in a row.
    answered = not isinstance(subject.config, SAMPLING)
    rows = [spoken(row, answered=answered) for _, row in subject.drawn]
    written = _written_out(rows, found)
    if not written:
        _repeats(rows, found)
        _same_prompts(subject, rows, found)
        if not _missing(rows, found):
            _same_answers(subject, rows, found)
        _ends(subject, rows, found)
        _unread(subject, rows, found)
    _golds(subject, found)


def _share(hits: Sequence[bool]) -> float:
    return sum(hits) / len(hits)


def _written_out(rows: Sequence[Spoken], found: Findings) -> bool:
    """Lists of messages that became text on their way into the file."""
    hits = [next((text for text in row.texts if _is_messages(text)), None) for row in rows]
    share = _share([hit is not None for hit in hits])
    if share <= FEW:
        return False
    first = next(hit for hit in hits if hit)
    found.report(
        "text",
        f"{share:.0%} of the rows hold a list of messages written out as text, such as "
        f"{first[:80]!r}: the model would read its brackets and quotes",
        "write the list itself into the column: json.loads or ast.literal_eval makes it of the "
        "text",
        certain=share > MOST,
    )
    return share > MOST


def _is_messages(text: str) -> bool:
    text = text.strip()
    if not text.startswith(("[{", "{")) or not text.endswith("}" if text[0] == "{" else "]"):
        return False
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        try:
            value = ast.literal_eval(text)
        except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
            return False
    first = value[0] if isinstance(value, list) and value else value
    return isinstance(first, dict) and any(keys <= first.keys() for keys in MESSAGE)


def _repeats(rows: Sequence[Spoken], found: Findings) -> None:
    """Answers with the prompt in front of them once more, as whole texts have it."""
    begins = [[_begins(row, answer) for answer in row.answers.values()] for row in rows]
    hits = [bool(each) and all(each) for each in begins]
    if _share(hits) <= MOST:
        return
    # Code that is asked to be completed may well be given whole; a question is not asked again.
    if all(row.chat and _CODE.search(row.asked) for row in rows[:LEAST]):
        return
    certain = [
        hit and (not row.chat or bool(_SENTENCE.search(row.asked.strip())))
        for hit, row in zip(hits, rows, strict=True)
    ]
    first = rows[hits.index(True)]
    found.report(
        "text",
        f"in {_share(hits):.0%} of the rows the answer ({' and '.join(first.answers)}) begins with "
        f"its own prompt, such as {first.asked[-60:]!r}: the model would learn to say it again",
        "give the answer alone, without the prompt before it",
        certain=_share(certain) > MOST,
    )


def _begins(row: Spoken, answer: str) -> bool:
    asked = row.asked.strip()
    return len(asked) > 3 and answer.strip().startswith(asked)


def _same_prompts(subject: Subject, rows: Sequence[Spoken], found: Findings) -> None:
    """One prompt for all, where something must tell the rows apart."""
    if len(rows) < LEAST or len({(*row.before, row.asked) for row in rows}) > 1:
        return
    asked = rows[0].asked
    golds = {str(row.get("solution")) for _, row in subject.drawn}
    said = f"all {len(rows)} prompts that were looked at are the same, {asked[:80]!r}"
    cure = "put the question into the column 'prompt'"
    if open_ := _PLACEHOLDER.search(asked):
        found.error("text", f"{said}: {open_[0]} was never filled in", cure)
    elif isinstance(subject.config, SAMPLING) and len(golds) > 1:
        found.error("text", f"{said}, and their golds differ: nothing tells what is asked", cure)


def _answers(rows: Sequence[Spoken]) -> list[str]:
    return [answer.strip() for row in rows for answer in row.answers.values()]


def _missing(rows: Sequence[Spoken], found: Findings) -> bool:
    """Answers that are none."""
    answers = _answers(rows)
    missing = [text for text in answers if text.lower() in MISSING]
    share = len(missing) / max(1, len(answers))
    if share <= FEW:
        return False
    found.report(
        "text",
        f"{share:.0%} of the answers are {missing[0]!r}: values that were missing where the rows "
        "come from",
        "drop these rows",
        certain=share > SOME,
    )
    return True


def _same_answers(subject: Subject, rows: Sequence[Spoken], found: Findings) -> None:
    """One answer to all or most."""
    answers = Counter(_answers(rows))
    if not answers:
        return
    prompts = {row.asked for row in rows}
    text, count = answers.most_common(1)[0]
    most = len(answers) == 1 or (len(text) > A_SENTENCE and count > MOST * answers.total())
    if isinstance(subject.config, Sft) and len(rows) >= ENOUGH <= len(prompts) and most:
        found.warning(
            "text",
            f"{count} of {len(rows)} answers that were looked at are the same, {text[:80]!r}: "
            "the model would learn to say it whatever it is asked",
            "look at the column 'completion'",
        )


def _ends(subject: Subject, rows: Sequence[Spoken], found: Findings) -> None:
    """Answers that end in another model's end token, written out."""
    own = subject.tokenizer.all_special_tokens
    texts = _answers(rows)
    ends = [next((end for end in ENDS if text.endswith(end)), None) for text in texts]
    foreign = [end for end in ends if end and end not in own]
    share = len(foreign) / max(1, len(texts))
    if share > FEW:
        found.report(
            "end token",
            f"{share:.0%} of the answers end in {foreign[0]!r}, which is another model's end token "
            "and here a few letters: the model would learn to write them before its own",
            "take it off the end of the answers",
            certain=share > MOST,
        )


def _golds(subject: Subject, found: Findings) -> None:
    """One gold for all."""
    rows = [row for _, row in subject.drawn if isinstance(row.get("solution"), str)]
    config = subject.config
    if not rows or not isinstance(config, Rollouts | Sample):
        return
    golds = [row["solution"].strip() for row in rows]
    judged = any(isinstance(one, rewards.Accuracy) for one in leaves(config.reward))
    prompts = {json.dumps(row["prompt"]) for row in rows}
    if judged and len(prompts) >= ENOUGH and len(set(golds)) == 1:
        found.error(
            "gold",
            f"the gold of all {len(golds)} rows that were looked at is {golds[0][:60]!r} (column "
            "'solution'): to say it whatever is asked would earn the whole reward",
            "put each row's own answer there",
        )


def _unread(subject: Subject, rows: Sequence[Spoken], found: Findings) -> None:
    """Text that the tokenizer has no tokens for."""
    unknown = subject.tokenizer.unk_token_id
    if unknown is None:
        return
    encoded = [[i for text in row.texts for i in subject.encode(text)] for row in rows[:LOOKED_AT]]
    hits = [unknown in ids for ids in encoded]
    share = sum(ids.count(unknown) for ids in encoded) / max(1, sum(map(len, encoded)))
    if _share(hits) <= SOME and share <= UNREAD:
        return
    words = rows[hits.index(True)].texts
    text = next(text for text in words if unknown in subject.encode(text))
    found.report(
        "tokenizer",
        f"{_share(hits):.0%} of the rows hold characters that the tokenizer of {subject.path} does "
        f"not know, {share:.1%} of all tokens, such as in {text[:60]!r}: the model sees "
        f"{subject.tokenizer.unk_token!r} in their place",
        "take a model whose tokenizer reads this text, with --model",
        certain=share > UNREAD,
    )
