"""Rows as token ids with a loss mask: what the model reads, and what it is trained to write.

The mask is 1 on what the model itself would write after the generation prompt, up to and including
the token that ends its turn, once per trained assistant turn; 0 elsewhere. It comes from positions,
never from comparing ids with the pad token, so a tokenizer whose pad token is its end token
(SmolLM2) still learns to stop. What a template puts after the end token (ChatML's newline) is not
trained, and is left out altogether after the last turn.

The ids of the prompt alone are a prefix of the ids of the whole, so a training row and a sampled
row agree. A template that breaks this (it rewrites earlier turns, or its tokens merge across the
border) is replaced by TRL's training variant of the same template where there is one, else refused
with the place where they part.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from data.rows import ROLES, DataError, Message, show

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

log = logging.getLogger(__name__)

Prompt = str | Sequence[Message]
_PROBE = "probe7253"


class RenderError(DataError):
    """A row that cannot be turned into ids and mask without training the wrong thing."""


@dataclass(frozen=True, kw_only=True)
class Rendered:
    """ids: T token ids. mask: T ones and zeros, 1 on trained tokens; ids[t] is trained given
    ids[:t].
    """

    ids: list[int]
    mask: list[int]


def prompt_ids(tokenizer: PreTrainedTokenizerBase, prompt: Prompt) -> list[int]:
    """Ids of a prompt as the sampler sees it. Messages go through the chat template with its
    generation prompt; a plain string is tokenised as it is, with a beginning token only if the
    tokenizer adds one. Raises RenderError for messages that do not await an answer.
    """
    if isinstance(prompt, str):
        return _plain_prompt(tokenizer, prompt)
    _check_prompt(prompt)
    return _encode(tokenizer, _text(tokenizer, prompt, _template(tokenizer), generate=True))


def stop_ids(tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """Ids that end a completion: the template's own end of turn first, then the tokenizer's end
    token.
    """
    found = [] if tokenizer.chat_template is None else [stop(tokenizer)[0]]
    if tokenizer.eos_token_id is not None and tokenizer.eos_token_id not in found:
        found.append(tokenizer.eos_token_id)
    if not found:
        raise RenderError(
            "the tokenizer has neither an end token nor a chat template: set tokenizer.eos_token"
        )
    return found


def stop(tokenizer: PreTrainedTokenizerBase) -> tuple[int, str]:
    """The token by which the chat template ends an answer, as id and as text. Raises RenderError
    where there is none.
    """
    return _stop(tokenizer, _template(tokenizer))


def render(tokenizer: PreTrainedTokenizerBase, row: Mapping[str, Any]) -> Rendered:
    """Ids and mask of a row with `prompt` and `completion` (messages or strings), or with
    `messages`.

    Trained are the completion's assistant turns, or all of `messages`. Raises RenderError (see
    above), and for a row with nothing to train.
    """
    prompt, completion, messages = (row.get(key) for key in ("prompt", "completion", "messages"))
    if isinstance(completion, str) and isinstance(prompt, str):
        return _render_plain(tokenizer, prompt, completion)
    if isinstance(completion, list) and isinstance(prompt, list):
        _check_prompt(prompt)
        return _render_chat(tokenizer, prompt + completion, len(prompt))
    if completion is None and isinstance(messages, list):
        return _render_chat(tokenizer, messages, 0)
    raise RenderError(
        "a row needs prompt and completion, both messages or both strings, or messages; here are "
        + ", ".join(f"{key}: {type(value).__name__}" for key, value in row.items())
    )


def _check_prompt(prompt: Any) -> None:
    _check_messages(prompt)
    if not prompt or prompt[-1]["role"] in ("assistant", "system"):
        raise RenderError("a prompt must end with a turn that awaits an answer, such as the user's")


def _check_messages(messages: Any) -> None:
    """A template would write None, or a list's brackets, as if somebody had said so."""
    if not isinstance(messages, list | tuple):
        raise RenderError(f"a chat is a list of messages, here is {show(messages)}")
    for turn, each in enumerate(messages):
        if not isinstance(each, Mapping) or not isinstance(each.get("content"), str):
            raise RenderError(f"turn {turn}: expected a message of text, found {show(each)}")
        if each.get("role") not in ROLES:
            found = show(each.get("role"))
            raise RenderError(f"turn {turn}: expected a role of {', '.join(ROLES)}, found {found}")


def _render_plain(tokenizer: PreTrainedTokenizerBase, prompt: str, completion: str) -> Rendered:
    if tokenizer.eos_token_id is None:
        raise RenderError("plain text needs an end token to learn to stop: set tokenizer.eos_token")
    before = _plain_prompt(tokenizer, prompt)
    after = [*_encode(tokenizer, completion), tokenizer.eos_token_id]
    return Rendered(ids=before + after, mask=[0] * len(before) + [1] * len(after))


def _plain_prompt(tokenizer: PreTrainedTokenizerBase, prompt: str) -> list[int]:
    ids = _ids(tokenizer, prompt)
    # Some tokenizers close every text with the end token, which would tell the model that the
    # prompt is over.
    if ids and ids[-1] == tokenizer.eos_token_id and _encode(tokenizer, prompt)[-1:] != ids[-1:]:
        ids.pop()
    return ids


def _render_chat(
    tokenizer: PreTrainedTokenizerBase, messages: list[Message], first: int
) -> Rendered:
    """Renders with the tokenizer's own template, or TRL's training variant where that one fails."""
    _check_messages(messages)
    template = _template(tokenizer)
    try:
        return _render_with(tokenizer, messages, first, template)
    except RenderError as refused:
        variant = _training_template(tokenizer, template)
        if variant is None:
            raise
        try:
            rendered = _render_with(tokenizer, messages, first, variant)
        except RenderError:
            raise refused from None
        _announce(tokenizer, template)
        return rendered


def _render_with(
    tokenizer: PreTrainedTokenizerBase, messages: list[Message], first: int, template: str
) -> Rendered:
    turns = [
        place
        for place, each in enumerate(messages)
        if each["role"] == "assistant" and place >= first
    ]
    if not turns:
        raise RenderError("no assistant turn to train")
    if turns[0] == 0:
        raise RenderError("the dialogue starts with the assistant: there is no prompt to answer")
    stop, stop_text = _stop(tokenizer, template)
    whole = _text(tokenizer, messages, template, generate=False)
    ids = _encode(tokenizer, whole)
    mask = [0] * len(ids)
    for turn in turns:
        before = _text(tokenizer, messages[:turn], template, generate=True)
        _check_text(turn, before, whole, messages[turn]["content"], stop_text)
        start = _start(tokenizer, before, ids, turn)
        if stop not in ids[start:]:
            raise RenderError(
                f"turn {turn}: the chat template does not close it with {stop_text!r}"
            )
        end = ids.index(stop, start)
        mask[start : end + 1] = [1] * (end + 1 - start)
    length = len(mask) - mask[::-1].index(1)
    return Rendered(ids=ids[:length], mask=mask[:length])


def _check_text(turn: int, before: str, whole: str, content: str, stop_text: str) -> None:
    """Raises RenderError unless prompt and answer stand in the whole as they were given."""
    if stop_text in content:
        raise RenderError(
            f"turn {turn} contains {stop_text!r}, the token that ends a turn: remove it from the "
            "text"
        )
    if not whole.startswith(before):
        place = _parting(before, whole)
        raise RenderError(
            f"turn {turn}: the chat template renders the prompt differently once the answer is "
            f"there: {before[place : place + 60]!r} became {whole[place : place + 60]!r}"
        )
    # White space aside: some templates set <think> on lines of its own.
    rendered = whole[len(before) :].partition(stop_text)[0]
    if "".join(content.split()) not in "".join(rendered.split()):
        raise RenderError(
            f"turn {turn}: the chat template rewrites the assistant's text (it drops, say, earlier "
            f"<think> blocks): {content[:60]!r} became {rendered[:60]!r}. Set "
            "tokenizer.chat_template to one that keeps it; or, where that is no last turn, give "
            "prompt and completion"
        )


def _start(tokenizer: PreTrainedTokenizerBase, before: str, ids: list[int], turn: int) -> int:
    """Where the turn's tokens begin, after checking that what comes before is a prefix of `ids`."""
    prefix = _encode(tokenizer, before)
    if ids[: len(prefix)] != prefix:
        place = _parting(prefix, ids)
        raise RenderError(
            f"turn {turn}: tokens merge across the border of prompt and answer: "
            f"{tokenizer.decode(prefix[place:])!r} alone is {prefix[place:]}, followed by the "
            f"answer it begins {ids[place : place + 3]}. Strip white space from the start of the "
            "answer"
        )
    return len(prefix)


def _parting(one: Sequence[Any], other: Sequence[Any]) -> int:
    """The first place where two sequences differ."""
    pairs = enumerate(zip(one, other, strict=False))
    return next((place for place, (a, b) in pairs if a != b), min(len(one), len(other)))


@lru_cache(maxsize=8)
def _stop(tokenizer: PreTrainedTokenizerBase, template: str) -> tuple[int, str]:
    """The token that the template puts right after an assistant's text, as id and as text."""
    chat = [{"role": "user", "content": "x"}, {"role": "assistant", "content": _PROBE}]
    tail = _text(tokenizer, chat, template, generate=False).rpartition(_PROBE)[2]
    first = _encode(tokenizer, tail)[:1]
    added = tokenizer.added_tokens_decoder
    if first and (first[0] in added or first[0] == tokenizer.eos_token_id):
        return first[0], tokenizer.convert_ids_to_tokens(first[0])
    raise RenderError(
        f"the chat template puts {tail[:40]!r} after an assistant's text, which is no single "
        "special token to stop at; set tokenizer.chat_template to one that ends the turn with a "
        "special token"
    )


def _template(tokenizer: PreTrainedTokenizerBase) -> str:
    template = tokenizer.chat_template
    if isinstance(template, dict):  # shipped as named variants
        template = template.get("default")
    if template is None:
        raise RenderError(
            "the tokenizer has no chat template, as a base model's: use style='r1-zero' for "
            "plain-string prompts, or set tokenizer.chat_template"
        )
    return template


def _text(
    tokenizer: PreTrainedTokenizerBase,
    messages: Sequence[Message],
    template: str,
    *,
    generate: bool,
) -> str:
    try:
        return tokenizer.apply_chat_template(
            list(messages), tokenize=False, add_generation_prompt=generate, chat_template=template
        )
    except Exception as error:  # a template is a program, and may fail in any way
        roles = ", ".join(each["role"] for each in messages)
        raise RenderError(
            f"the chat template fails on a chat of {roles} ({type(error).__name__}: {error}): "
            "change the rows to what it takes, or set tokenizer.chat_template to another"
        ) from error


def _encode(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    return _ids(tokenizer, text, add_special_tokens=False)


def _ids(tokenizer: PreTrainedTokenizerBase, text: str, **options: bool) -> list[int]:
    try:
        return list(tokenizer(text, **options)["input_ids"])
    except (TypeError, UnicodeEncodeError) as error:
        said = f"no text for a tokenizer, as half a surrogate pair is none: {show(text)}"
        raise RenderError(said) from error


@lru_cache(maxsize=8)
def _training_template(tokenizer: PreTrainedTokenizerBase, template: str) -> str | None:
    """TRL's prefix-preserving variant of the template, if TRL knows it."""
    from trl.chat_template_utils import get_training_chat_template

    try:
        variant = get_training_chat_template(tokenizer)
    except Exception:  # a template that TRL does not know, or that fails where TRL tries it
        return None
    return None if variant == template else variant


@lru_cache(maxsize=8)  # once for each tokenizer and template
def _announce(tokenizer: PreTrainedTokenizerBase, template: str) -> None:
    log.warning(
        "%s: the chat template rewrites earlier turns; such rows are rendered with TRL's training "
        "variant of it",
        tokenizer.name_or_path or "tokenizer",
    )
