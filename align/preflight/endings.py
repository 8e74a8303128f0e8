"""What ends a completion, and what fills a batch: tokens that must stand nowhere else.

Three places name an end token: the chat template by what it puts after an answer, the tokenizer by
its `eos_token`, the model's files (config.json, generation_config.json) by `eos_token_id`. Trained
is the template's for chats and the tokenizer's for plain text; the sampler stops at all of them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import data
from align import models
from align.config import Ppo, RewardModel
from align.preflight.subject import Subject
from align.terminal.findings import Findings

FEW = 0.01


def check(subject: Subject, found: Findings) -> None:
    tokenizer = subject.tokenizer
    chats = not _plain(subject)
    try:
        named = _of_model(subject)
    except models.ModelError as error:
        found.error("end token", str(error), f'as in {{"eos_token_id": {tokenizer.eos_token_id}}}')
        return
    try:
        stop = data.chat.stop_ids(tokenizer)
    except data.chat.RenderError as error:
        if chats or subject.samples:
            found.error("end token", str(error), "see tokenizer_config.json of " + subject.path)
        return
    trained = stop[0] if chats else tokenizer.eos_token_id
    _agree(subject, found, named=named, trained=trained)
    _in_text(subject, found, ids=[*stop, *named])
    _pad(subject, found)


def _plain(subject: Subject) -> bool:
    _, row = subject.drawn[0]
    return isinstance(row.get("prompt"), str)


def _of_model(subject: Subject) -> list[int]:
    """The end tokens that the model's own files name. Raises ModelError for broken ones."""
    text = subject.model_config.get_text_config()
    own = getattr(text, "eos_token_id", None)
    listed = own if isinstance(own, list) else [] if own is None else [own]
    return listed + models.end_tokens(subject.path)


def _agree(subject: Subject, found: Findings, *, named: list[int], trained: int) -> None:
    tokenizer = subject.tokenizer
    end = tokenizer.eos_token_id
    if not named:
        return
    size = getattr(subject.model_config.get_text_config(), "vocab_size", None)
    if size and (beyond := [token for token in named if not 0 <= token < size]):
        found.error(
            "end token",
            f"config.json or generation_config.json in {subject.path} names the end token "
            f"{beyond[0]}, and the model has {size:,} tokens",
            f'write "eos_token_id": {end} there',
        )
        return
    special = {*tokenizer.all_special_ids, *tokenizer.added_tokens_decoder}
    if ordinary := [token for token in named if token not in special]:
        found.error(
            "end token",
            f"config.json or generation_config.json in {subject.path} names the end token "
            f"{_name(subject, ordinary[0])}, which is an ordinary one: an answer would stop there",
            f'write "eos_token_id": {end} there',
        )
        return
    says = f"{_name(subject, named[0])} in its config.json"
    if end not in named and end != trained:
        found.error(
            "end token",
            f"the tokenizer of {subject.path} has the end token {_name(subject, end)}, which is "
            f"neither the model's ({says}) nor what the chat template ends a turn with "
            f"({_name(subject, trained)})",
            f'set "eos_token": {tokenizer.convert_ids_to_tokens(trained)!r} in its '
            "tokenizer_config.json",
        )
    elif end not in named and _plain(subject):
        found.error(
            "end token",
            f"plain text is trained to end with the tokenizer's {_name(subject, end)}, and the "
            f"model in {subject.path} ends with {says}",
            f'set "eos_token": {tokenizer.convert_ids_to_tokens(named[0])!r} in its '
            "tokenizer_config.json, or mend config.json",
        )
    elif trained not in named:
        _untaught(subject, found, trained, says)


def _untaught(subject: Subject, found: Findings, trained: int, says: str) -> None:
    """A chat template's end of turn that the model was not made to write, as of Qwen2.5's base."""
    said = (
        f"the chat template of {subject.path} ends a turn with {_name(subject, trained)}, the "
        f"model with {says}"
    )
    if subject.samples and not subject.config.model.startswith(("@", "layers:")):
        found.warning(
            "end token",
            f"{said}: a base model hardly ever writes the first, and sampling stops at both",
            "begin with SFT, as in the recipe qwen0.5b-r1, or ask in plain text: style=r1-zero",
        )
    else:
        found.note("end token", f"{said}; the first is trained, sampling stops at both")


def _in_text(subject: Subject, found: Findings, *, ids: Sequence[int]) -> None:
    """An ordinary token as end token would cut answers in their middle, as a special one does that
    is written out in the rows.
    """
    token, share = _most_seen(subject, ids)
    if share > FEW:
        word = subject.tokenizer.convert_ids_to_tokens(token)
        markup = len(word) > 3 and word.startswith(("<", "["))  # no letter or word of any text
        found.error(
            "end token",
            f"{_name(subject, token)} ends a completion, and stands in the text of {share:.0%} of "
            "the rows",
            "take it out of their text: it is written behind every answer"
            if markup
            else "set eos_token in tokenizer_config.json (eos_token_id in generation_config.json) "
            "to the special token that ends an answer",
        )


def _pad(subject: Subject, found: Findings) -> None:
    tokenizer = subject.tokenizer
    pad = tokenizer.pad_token_id
    # What no token stands for may well be what is not read.
    if pad is None or pad in (tokenizer.eos_token_id, tokenizer.unk_token_id):
        return
    _, share = _most_seen(subject, [pad])
    if share > FEW:
        scored = isinstance(subject.config, RewardModel | Ppo)
        found.error(
            "pad token",
            f"the pad token {_name(subject, pad)} is an ordinary one: it stands in the text of "
            f"{share:.0%} of the rows"
            + (", and a score is read at the last token that is not it" if scored else ""),
            f'set "pad_token": {tokenizer.eos_token!r} in tokenizer_config.json of {subject.path}',
        )


def _most_seen(subject: Subject, ids: Sequence[int]) -> tuple[int, float]:
    """Of these tokens, the one in most rows' own text, and its share of the rows."""
    texts = [_words(row) for _, row in subject.drawn[:128]]
    encoded = [set(subject.encode(text)) for text in texts]
    shares = {i: sum(i in each for each in encoded) / len(encoded) for i in ids}
    return max(shares.items(), key=lambda item: item[1])


def _words(row: Mapping[str, Any]) -> str:
    """What people wrote in a row."""
    texts: list[str] = []
    for column in data.rows.CONTENT_COLUMNS:
        value = row.get(column)
        if isinstance(value, str):
            texts.append(value)
        elif value is not None:
            texts += [turn["content"] for turn in value]
    if isinstance(row.get("solution"), str):
        texts.append(row["solution"])
    return "\n".join(texts)


def _name(subject: Subject, token: int) -> str:
    return f"{subject.tokenizer.convert_ids_to_tokens(token)!r} (id {token})"
