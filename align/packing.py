"""Shared-prefix packs: a prompt is computed once, however many completions hang on it.

A *group* is one prompt and its completions. It is laid out as one row: the prompt's tokens, then
every completion, position ids restarting after the prompt; a token attends to its own segment and
to its prompt. Rows are filled up to a token budget, so nothing is padded. A group larger than the
budget is cut between completions and its prompt repeated. The padded layout (one row a sequence)
has the same type, so a model that cannot take such a mask runs the same code.

Shapes: R rows, T tokens a row, C trained tokens (those whose log-probability is wanted), flat over
the pack.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

PAD = -1  # segment id of a cell that holds no token


@dataclass(kw_only=True)
class Completion:
    """One continuation of a prompt.

    `ids`: its tokens. `mask`: 1 on the tokens to train (None: all of them).
    `columns`: named values, a number for the whole completion or one value a token of `ids`.
    """

    ids: Sequence[int]
    mask: Sequence[int] | None = None
    columns: dict[str, float | Sequence[float]] = field(default_factory=dict)


@dataclass(kw_only=True)
class Group:
    """One prompt and its completions; its last token predicts the first of each completion."""

    prompt: Sequence[int]
    completions: list[Completion]

    def __post_init__(self) -> None:
        if not self.prompt:
            raise ValueError(
                "a group needs a prompt of at least one token to predict its first completion token"
            )
        if any(not completion.ids for completion in self.completions):
            raise ValueError("a completion needs at least one token (the end token counts)")


@dataclass(kw_only=True)
class Pack:
    """Rows of tokens and the flat list of the tokens whose log-probability is wanted.

    input_ids, position_ids, segment, prompt: LongTensor[R, T]; `segment` numbers each prompt and
    each completion, `prompt` is the segment of the token's own prompt. predictor: LongTensor[C],
    the flat cell (row * T + column) whose hidden state predicts token c; target: LongTensor[C], the
    token; sequence: LongTensor[C], the completion it belongs to, 0 .. sequences-1. last:
    LongTensor[sequences], the cell of each completion's last token. together: that many sequences
    in a row are one unit of the loss, such as a pair. columns: float Tensor[C] each.
    """

    input_ids: Tensor
    position_ids: Tensor
    segment: Tensor
    prompt: Tensor
    predictor: Tensor
    target: Tensor
    sequence: Tensor
    last: Tensor
    sequences: int
    padded: bool = False
    together: int = 1
    columns: dict[str, Tensor] = field(default_factory=dict)

    @property
    def tokens(self) -> int:
        """Tokens computed, padding included."""
        return self.input_ids.numel()

    def to(self, device: torch.device | str) -> Pack:
        moved = {k: v.to(device) for k, v in vars(self).items() if isinstance(v, Tensor)}
        columns = {k: v.to(device) for k, v in self.columns.items()}
        return replace(self, **moved, columns=columns)

    def lengths(self) -> Tensor:
        """Trained tokens of each sequence, LongTensor[sequences]."""
        return torch.bincount(self.sequence, minlength=self.sequences)

    def per_sequence(self, name: str) -> Tensor:
        """A column that is one number a completion, Tensor[sequences]; each needs a trained
        token.
        """
        lengths = self.lengths()
        return self.columns[name].index_select(0, lengths.cumsum(0) - lengths)

    def attention_mask(self) -> Tensor:
        """What each token may attend to: BoolTensor[R, 1, T, T], or LongTensor[R, T] if padded."""
        if self.padded:
            return (self.segment != PAD).long()
        query, key = self.segment[:, :, None], self.segment[:, None, :]
        same = (query == key) | (self.prompt[:, :, None] == key)
        causal = torch.ones(
            self.segment.shape[1], self.segment.shape[1], dtype=torch.bool, device=query.device
        )
        return (same & causal.tril()).unsqueeze(1)


def pack(
    groups: Iterable[Group], *, token_budget: int, padded: bool = False, whole: bool = False
) -> list[Pack]:
    """Lay out groups in packs of at most `token_budget` tokens.

    Only a single prompt + completion longer than that gets a larger pack. First-fit by decreasing
    size; the order is a function of the input alone, so a resumed run packs alike.
    whole: a group's completions stay in one pack, next to each other and in order (a pair is
    compared), and only a group longer than the budget gets a larger pack. All groups must then have
    equally many, else ValueError.
    """
    groups = list(groups)
    together = _in_each(groups) if whole else 1
    if padded:
        batches = _padded_rows(groups, token_budget, whole=whole)
        return [_padded(rows, together) for rows in batches]
    pieces = [
        piece for group in groups for piece in ([group] if whole else _cut(group, token_budget))
    ]
    pieces.sort(key=_size, reverse=True)
    bins: list[tuple[int, list[Group]]] = []
    for piece in pieces:
        size = _size(piece)
        for i, (used, members) in enumerate(bins):
            if used + size <= token_budget:
                members.append(piece)
                bins[i] = (used + size, members)
                break
        else:
            bins.append((size, [piece]))
    return [_packed(members, together) for _, members in bins]


def least_tokens(groups: Iterable[Group]) -> int:
    """The fewest tokens that must be computed: every prompt once, every completion once."""
    return sum(_size(group) for group in groups if group.completions)


def _in_each(groups: Sequence[Group]) -> int:
    counts = {len(group.completions) for group in groups}
    if len(counts) > 1:
        raise ValueError(
            f"groups that stay whole have {sorted(counts)} completions, not equally many"
        )
    return counts.pop() if counts else 1


def _size(group: Group) -> int:
    return len(group.prompt) + sum(len(completion.ids) for completion in group.completions)


def _cut(group: Group, token_budget: int) -> list[Group]:
    """Cut a group into pieces that fit, filled evenly enough by taking completions in order."""
    pieces: list[Group] = []
    room = 0
    for completion in group.completions:
        if not pieces or len(completion.ids) > room:
            pieces.append(Group(prompt=group.prompt, completions=[]))
            room = token_budget - len(group.prompt)
        pieces[-1].completions.append(completion)
        room -= len(completion.ids)
    return pieces


class _Builder:
    """Collects rows, then makes the tensors."""

    def __init__(self) -> None:
        self.rows: list[dict[str, list[int]]] = []
        self.trained: list[
            tuple[int, int, int, int]
        ] = []  # row, predictor column, target, sequence
        self.columns: dict[str, list[float]] = {}
        self.last: list[tuple[int, int]] = []  # row, column
        self.sequences = 0
        self.segments = 0

    def row(self) -> None:
        self.rows.append({"ids": [], "positions": [], "segment": [], "prompt": []})

    def tokens(self, ids: Sequence[int], first_position: int, prompt: int | None = None) -> int:
        row, segment = self.rows[-1], self.segments
        self.segments += 1
        row["ids"] += ids
        row["positions"] += range(first_position, first_position + len(ids))
        row["segment"] += [segment] * len(ids)
        row["prompt"] += [segment if prompt is None else prompt] * len(ids)
        return segment

    def completion(
        self, completion: Completion, prompt: int, prompt_end: int, first_position: int
    ) -> None:
        """Append a completion; cell `prompt_end` of the same row predicts its first token."""
        start = len(self.rows[-1]["ids"])
        self.tokens(completion.ids, first_position, prompt)
        mask = completion.mask if completion.mask is not None else [1] * len(completion.ids)
        for i, (token, wanted) in enumerate(zip(completion.ids, mask, strict=True)):
            if not wanted:
                continue
            predictor = prompt_end if i == 0 else start + i - 1
            self.trained.append((len(self.rows) - 1, predictor, token, self.sequences))
            for name, value in completion.columns.items():
                self.columns.setdefault(name, []).append(
                    value[i] if isinstance(value, Sequence) else value
                )
        self.last.append((len(self.rows) - 1, start + len(completion.ids) - 1))
        self.sequences += 1

    def build(self, *, padded: bool, together: int) -> Pack:
        width = max(len(row["ids"]) for row in self.rows)

        def grid(name: str, fill: int) -> Tensor:
            return torch.tensor(
                [row[name] + [fill] * (width - len(row[name])) for row in self.rows]
            )

        flat = torch.tensor(self.trained, dtype=torch.long).reshape(-1, 4)
        return Pack(
            input_ids=grid("ids", 0),
            position_ids=grid("positions", 0),
            segment=grid("segment", PAD),
            prompt=grid("prompt", PAD),
            predictor=flat[:, 0] * width + flat[:, 1],
            target=flat[:, 2],
            sequence=flat[:, 3],
            last=torch.tensor([row * width + column for row, column in self.last]),
            sequences=self.sequences,
            padded=padded,
            together=together,
            columns={k: torch.tensor(v, dtype=torch.float32) for k, v in self.columns.items()},
        )


def _packed(groups: list[Group], together: int) -> Pack:
    build = _Builder()
    build.row()
    for group in groups:
        prompt = build.tokens(group.prompt, 0)
        prompt_end = len(build.rows[-1]["ids"]) - 1
        for completion in group.completions:
            build.completion(completion, prompt, prompt_end, len(group.prompt))
    return build.build(padded=False, together=together)


def _padded_rows(groups: Iterable[Group], token_budget: int, *, whole: bool) -> list[list[Group]]:
    """One row a completion, sorted by length; batches of at most the budget, padding counted."""
    if whole:
        units = [_rows(group) for group in groups]
    else:
        units = [[row] for group in groups for row in _rows(group)]
    units.sort(key=_width, reverse=True)
    batches: list[list[Group]] = []
    for unit in units:
        if batches and (len(batches[-1]) + len(unit)) * _width(batches[-1]) <= token_budget:
            batches[-1] += unit
        else:
            batches.append(list(unit))
    return batches


def _rows(group: Group) -> list[Group]:
    return [Group(prompt=group.prompt, completions=[one]) for one in group.completions]


def _width(rows: list[Group]) -> int:
    """Of padded rows; those of a batch come longest unit first."""
    return max(_size(row) for row in rows)


def _padded(rows: list[Group], together: int) -> Pack:
    build = _Builder()
    for group in rows:
        build.row()
        prompt = build.tokens(group.prompt, 0)
        build.completion(group.completions[0], prompt, len(group.prompt) - 1, len(group.prompt))
    return build.build(padded=True, together=together)
