"""Text with a label, such as film reviews, as openings, as pairs or as unpaired judgements.

| use | columns | for |
|---|---|---|
| `openings` | prompt: prefix and first words, completion: the rest, label, text | SFT, PPO, GRPO |
| `pairs` | prompt: prefix, chosen: a positive text, rejected: a negative one | reward model, DPO |
| `kto` | prompt: prefix, completion: a text, label | KTO |

All are plain strings and read the same once joined, `Movie review: the first words and the rest`,
so that a reward model trained on pairs meets in PPO what it knows. A prompt ends without a space
and a completion starts with one: in a byte-level tokenizer a space belongs to the word after it, so
the prompt's ids are a prefix of the whole text's. White space is made single, for openings cut at
words.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence

from data.left_out import LeftOut
from data.rows import DataError, Row

USES = ("openings", "pairs", "kto")
PREFIX = "Text:"
OPENING_WORDS = 4


def mixed(texts: Sequence[Row], left_out: LeftOut) -> list[Row]:
    """Rows of text and label in an order that mixes the labels, each text once.

    Every stretch, and so every part that a split cuts, holds the labels in their shares to within
    one row each; within a label the order is that of the texts' hashes. It depends on the set of
    texts alone, not on the files' order or a seed, so two parts of one split never share a text.
    Left out are a text's repetitions, and all of a text that stands under both labels.
    """
    labels: dict[str, set[bool]] = {}
    for row in texts:
        labels.setdefault(row["text"], set()).add(row["label"])
    sides: dict[bool, list[str]] = {True: [], False: []}
    seen: set[str] = set()
    for row in texts:
        text = row["text"]
        if len(labels[text]) == 2:
            left_out.add("under both labels", repr(text[:40]))
        elif text in seen:
            left_out.add("a text for the second time", repr(text[:40]))
        else:
            sides[row["label"]].append(text)
        seen.add(text)
    spread = [
        ((place + 0.5) / len(side), not label, text)
        for label, side in sides.items()
        for place, text in enumerate(sorted(side, key=_digest))
    ]
    return [{"text": text, "label": not negative} for _, negative, text in sorted(spread)]


def openings(texts: Iterable[Row], *, prefix: str, words: int, left_out: LeftOut) -> Iterator[Row]:
    """The first words prompt the rest; a text that has no rest is left out."""
    for row in texts:
        parts = row["text"].split()
        if len(parts) <= words:
            left_out.add(f"of no more than {words} words", repr(row["text"]))
            continue
        yield {
            "prompt": " ".join(filter(None, (prefix, *parts[:words]))),
            "completion": " " + " ".join(parts[words:]),
            "label": row["label"],
            "text": row["text"],
        }


def pairs(texts: Sequence[Row], *, where: str, prefix: str, left_out: LeftOut) -> Iterator[Row]:
    """Each positive text with a negative one, each text once, as many pairs as the rarer label has
    texts.

    The first of each label go together, and so on: a lot drawn by the texts' order, which follows
    from their hashes or a seed. Raises DataError for texts of one label.
    """
    positive = [row["text"] for row in texts if row["label"]]
    negative = [row["text"] for row in texts if not row["label"]]
    if bool(positive) != bool(negative):
        raise DataError(
            f"{where}: pairs need texts of both labels, and all {len(texts)} have the label "
            f"{int(bool(positive))}; give the others too, as in "
            "--data pos.jsonl+neg.jsonl?use=pairs"
        )
    count = min(len(positive), len(negative))
    for text in positive[count:] + negative[count:]:
        left_out.add("without a partner of the other label", repr(text[:40]))
    for chosen, rejected in zip(positive, negative, strict=False):
        yield {"prompt": prefix, "chosen": f" {chosen}", "rejected": f" {rejected}"}


def unpaired(texts: Iterable[Row], *, prefix: str) -> Iterator[Row]:
    """Every text as a completion of the prefix, its label saying whether it is desirable."""
    for row in texts:
        yield {"prompt": prefix, "completion": f" {row['text']}", "label": row["label"]}


def _digest(text: str) -> bytes:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()
