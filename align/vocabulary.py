"""Whether two models mean the same by a token id."""

from __future__ import annotations

from transformers import PreTrainedTokenizerBase

import data
from align.models import ModelError, load_tokenizer


def check_same_tokenizer(tokenizer: PreTrainedTokenizerBase, *, path: str) -> None:
    """Raises ModelError where the model in `path` would read other words from the same ids."""
    other = load_tokenizer(path)
    if found := _first_difference(tokenizer, other):
        raise ModelError(
            f"the tokenizer of {path} is not that of {tokenizer.name_or_path}: the same token ids "
            f"mean other words there ({found}). Give a model with the policy's tokenizer"
        )


def check_teacher(tokenizer: PreTrainedTokenizerBase, *, path: str) -> None:
    """Raises ModelError where a student with this tokenizer cannot follow the teacher in `path`
    token by token: other words, or another end.
    """
    other = load_tokenizer(path)
    found = _first_difference(tokenizer, other) or _special_difference(tokenizer, other)
    if found:
        raise ModelError(
            f"the teacher {path} has another tokenizer than the student "
            f"{tokenizer.name_or_path}: {found}. Distributions can be compared over one vocabulary "
            "alone; give a teacher of the student's family, or train the student on what the "
            "teacher writes (a `sample` stage, then `sft`), which works across tokenizers"
        )


def _first_difference(one: PreTrainedTokenizerBase, other: PreTrainedTokenizerBase) -> str | None:
    """The lowest id that stands for different tokens."""
    mine, theirs = ({i: word for word, i in each.get_vocab().items()} for each in (one, other))
    for i in sorted(mine.keys() | theirs.keys()):
        if mine.get(i) != theirs.get(i):
            return f"id {i} is {_named(mine.get(i))} here and {_named(theirs.get(i))} there"
    return None


def _special_difference(one: PreTrainedTokenizerBase, other: PreTrainedTokenizerBase) -> str | None:
    """A token that is special in one of them, or the token that ends a completion."""
    mine, theirs = (
        {i: str(token) for i, token in each.added_tokens_decoder.items() if token.special}
        for each in (one, other)
    )
    if differ := sorted(mine.items() ^ theirs.items()):
        i, word = differ[0]
        return f"{word!r}, id {i}, is a special token in one of them alone"
    ends = [data.chat.stop_ids(each)[0] for each in (one, other)]
    if ends[0] != ends[1]:
        here, there = one.convert_ids_to_tokens(ends)
        return f"a completion ends with {here!r} here and with {there!r} there"
    return None


def _named(word: str | None) -> str:
    return "no token" if word is None else repr(word)
