"""Does a reward differ between completions at all? A constant one makes every group dead."""

from __future__ import annotations

import itertools
import math
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from data.prompts import worked
from data.reward_reads import columns_read
from data.reward_scores import FORMATS, GOLD_FORMAT, RewardCheckError, drawn_rows, scores

# As unlike as completions can be: in length, form, language, script, mood, and what they repeat.
TEXTS = (
    "",
    "7",
    worked("Step 1: read the question. Step 2: work it out.\n- first\n- then", "42"),
    "First, let us see. Next, we add. Finally, the answer is \\boxed{7}.",
    "第一步：先读题。最后，答案是7。",
    "the the the the the the the the the the the the",
    "What a wonderful, delightful film! I loved it. 😀 Thank you, please come again.",
    "TERRIBLE. I hate it; the worst, most boring day of my life. Sorry, I cannot help with that.",
    '```python\nprint({"a": [1, 2.5, None]})\n```\nSee https://example.org/?q=1 & more.',
    "word " * 3000,
)
LONG = 200_000  # tokens that the last of them is said to have
ROWS = 8
ENDED = {"timeout", "memory"}  # outcomes of a completion that a limit ended
MORE = 256  # rows tried where it applies to none of the first
SHORT = 400  # characters of a column that may be an answer
MOST_COLUMNS = 8
_TAG = re.compile(r"<([A-Za-z_]\w{0,30})>")


def check_ends(rows: Sequence[Mapping[str, Any]], reward: Callable[..., Any]) -> float:
    """Seconds that it takes for one completion. Raises RewardCheckError where a limit of its own
    ends it on each of three.
    """
    row, outcomes, seconds = rows[0], [], []
    for text in TEXTS[1:4]:
        begun = time.monotonic()
        (score,) = scores(reward, [row], [text])
        seconds.append(time.monotonic() - begun)
        outcomes.append(score.outcome)
    if {*outcomes} <= ENDED:
        raise RewardCheckError(
            f"the reward {getattr(reward, 'name', reward)} ended in {' and '.join({*outcomes})} on "
            f"each of {len(outcomes)} completions such as {TEXTS[3]!r}: it hangs, or its limits "
            "(seconds=, memory_mb=) are too low for what it does"
        )
    return min(seconds)  # the first may have loaded what it works with


def check_varies(
    rows: Sequence[Mapping[str, Any]], reward: Callable[..., Any], *, most: int = ROWS
) -> str:
    """What is to be doubted of it, or nothing. most: rows that are tried.

    Raises RewardCheckError for a reward that applies to none of some rows, or gives all of these
    completions, and the rows' own golds, one and the same value of their row, or of all rows where
    it looks into no column. (One that gives 0 may wait for something rare; so may one that reads
    columns, and with -1 too.)
    """
    asked = drawn_rows(rows, most)
    found = _tried(reward, asked)
    if _kinds(found) == {None}:
        asked = _applies(rows, reward)
        found = _tried(reward, asked)
    kinds = _kinds(found) - {None}
    if _tells(found) or kinds == {0.0}:
        return ""
    for form, answers in _answers(asked):
        texts = [form.replace("{solution}", answer) for answer in answers]
        found.append(scores(reward, asked, texts))
        if _tells(found):
            return ""
    value, *others = sorted(kinds - {None})  # type: ignore[type-var]
    if others:
        raise RewardCheckError(
            f"the reward gives each row one value ({value:g} to {others[-1]:g}) for every one of "
            f"{len(found)} completions as unlike as the empty one and the columns' texts as "
            "answers: it does not look at the text. Check that it reads the completions"
        )
    said = (
        f"the reward gives {value:g} for every one of {len(found)} completions as unlike as the "
        "empty one, the columns' texts as answers and other languages"
    )
    if not columns_read(reward, asked, [TEXTS[2]] * len(asked)):
        raise RewardCheckError(f"{said}, and looks into no column: a constant reward teaches "
                               "nothing. Check that it reads the completions")  # fmt: skip
    return f"{said}; look whether a completion can earn anything else, and in what form"


def _tried(reward: Callable[..., Any], asked: Sequence[Mapping[str, Any]]) -> list[list[Any]]:
    """The scores of each text on each row; the first row goes ahead, lest one that hangs takes the
    time that all of them have.
    """
    found = []
    for text in TEXTS:
        ids = [[0] * (LONG if text is TEXTS[-1] else len(text))]
        one = scores(reward, asked[:1], [text], ids=ids)
        # Where a limit ended it, the others would only take as long.
        rest = asked[1:] if one[0].outcome not in ENDED else []
        more = scores(reward, rest, [text] * len(rest), ids=ids * len(rest)) if rest else []
        found.append([*one, *more])
    if all(row.get("solution") for row in asked):
        golds = [GOLD_FORMAT.replace("{solution}", str(row["solution"])) for row in asked]
        found.append(scores(reward, asked, golds))
    return found


def _kinds(found: Sequence[Sequence[Any]]) -> set[float | None]:
    """The different values. Raises RewardCheckError for what is no finite number."""
    values = [score.value for each in found for score in each]
    if bad := [value for value in values if value is not None and not math.isfinite(value)]:
        raise RewardCheckError(
            f"the reward gives {bad[0]} for one of {len(found)} completions that were tried; it "
            "must be a finite number, or None where it does not apply"
        )
    return set(values)


def _tells(found: Sequence[Sequence[Any]]) -> bool:
    """Whether any row's completions have different values."""
    rows = itertools.zip_longest(*found)  # a text that a limit ended was tried on one row alone
    values = [{score.value for score in row if score is not None} - {None} for row in rows]
    return any(len(each) > 1 for each in values)


def applying(
    asked: Sequence[Mapping[str, Any]], reward: Callable[..., Any]
) -> list[Mapping[str, Any]]:
    """Those of the rows to which it applies."""
    found = scores(reward, asked, [TEXTS[2]] * len(asked))
    return [row for row, one in zip(asked, found, strict=True) if one.value is not None]


def _applies(
    rows: Sequence[Mapping[str, Any]], reward: Callable[..., Any]
) -> list[Mapping[str, Any]]:
    """A few rows to which it applies, of many. Raises RewardCheckError where there is none."""
    many = drawn_rows(rows, MORE)
    asked = applying(many, reward)
    if not asked:
        raise RewardCheckError(
            f"the reward applies to none of {len(many)} rows that were tried (None for every "
            "completion): nothing would be learnt. Check its gates (rewards.Where) against the "
            f"rows' columns: {', '.join(many[0])}"
        )
    return asked[:ROWS]


def _answers(asked: Sequence[Mapping[str, Any]]) -> Iterator[tuple[str, list[str]]]:
    """Forms, each with an answer a row: what stands in the rows, column by column, and the tags
    that their prompts name.
    """
    each = [answers_in(row) for row in asked]
    for place in range(max(map(len, each))):
        column = [answers[min(place, len(answers) - 1)] for answers in each]
        for form in FORMATS:
            yield form, column
    yield "{solution}", [in_tags(row) for row in asked]


def answers_in(row: Mapping[str, Any]) -> list[str]:
    """What may be the right answer: the short texts and numbers of its columns, the solution first;
    never empty.
    """
    names = [name for name in row if name not in ("prompt", "completion", "solution")]
    values = [row.get("solution"), *(row[name] for name in names)]
    texts = [str(value) for value in values if isinstance(value, str | int | float)]
    short = [text for text in dict.fromkeys(texts) if 0 < len(text) <= SHORT]
    return short[:MOST_COLUMNS] or ["42"]


def in_tags(row: Mapping[str, Any]) -> str:
    """A completion in the tags that the row's prompt names, in their order."""
    prompt = row.get("prompt") or ""
    turns = [prompt] if isinstance(prompt, str) else [str(turn.get("content")) for turn in prompt]
    names = dict.fromkeys(_TAG.findall("\n".join(turns)))
    answer = answers_in(row)[0]
    return "\n".join(f"<{name}>\n{answer}\n</{name}>" for name in names) or answer
