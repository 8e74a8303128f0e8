"""What a data set is here: a `Source` whose rows carry TRL's standard columns.

| column | type | used by |
|---|---|---|
| `prompt` | list of `{"role", "content"}`, or a string for a base model | all but whole chats |
| `completion` | the same kind as `prompt` | SFT, KTO |
| `messages` | list of messages, every assistant turn of which is trained | SFT |
| `chosen`, `rejected` | the same kind as `prompt` | reward model, DPO |
| `label` | bool | KTO |
| `solution` | str, the gold answer | the rewards, evaluation |

Further columns travel along untouched and reach the rewards by keyword. Departure from TRL: a
column may be null in some rows (a mixture unites the columns of its sources), and a null counts as
absent.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

if TYPE_CHECKING:
    from datasets import Dataset

Row = dict[str, Any]
Message = dict[str, str]

CONTENT_COLUMNS = ("prompt", "completion", "messages", "chosen", "rejected")


class DataError(ValueError):
    """Data that cannot be used as it is; the message says what, where, and what to type."""


class RowError(DataError):
    """The first bad row: its index, the column, what was expected there and what was seen."""

    def __init__(self, *, row: int, column: str, expected: str, seen: str) -> None:
        self.row, self.column, self.expected, self.seen = row, column, expected, seen
        super().__init__(f"row {row}, column {column!r}: expected {expected}, found {seen}")


@runtime_checkable
class Source(Protocol):
    """Anything with a name that yields rows."""

    @property
    def name(self) -> str:
        """A short name for logs and file names."""
        ...

    def rows(self) -> Dataset:
        """All rows, in an order that depends on nothing but the source's own fields."""
        ...


def message(role: str, content: str) -> Message:
    """One chat message."""
    return {"role": role, "content": content}


def user(content: str) -> list[Message]:
    """A prompt of a single question."""
    return [message("user", content)]


def assistant(content: str) -> list[Message]:
    """A completion of a single answer."""
    return [message("assistant", content)]


def dataset(rows: Iterable[Row]) -> Dataset:
    """Rows as a `datasets.Dataset`; columns missing from a row are null there.

    Raises RowError where a column is of two kinds (chat messages here, a plain string there; true
    here, "true" there), DataError where they differ deeper inside.
    """
    import pyarrow as pa
    from datasets import Dataset

    table = list(rows)
    # An ordered union: from_list would look at the first row's keys alone.
    columns = list(dict.fromkeys(column for row in table for column in row))
    try:
        return Dataset.from_dict({column: [row.get(column) for row in table] for column in columns})
    except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
        _check_kinds(table, columns)
        raise DataError(
            "a column holds values of two kinds, such as chat messages in one row and a string in "
            f"another: {error}. Give all parts of a mixture the same style= and the same column "
            "types."
        ) from error


def _check_kinds(table: list[Row], columns: list[str]) -> None:
    """Raises RowError for the first value of another kind than the first of its column."""
    for column in columns:
        values = [(place, row[column]) for place, row in enumerate(table) if column in row]
        given = [(place, value) for place, value in values if value is not None]
        for place, value in given:
            if _kind(value) is not _kind(given[0][1]):
                raise RowError(
                    row=place,
                    column=column,
                    expected=f"the same kind as in row {given[0][0]}, {show(given[0][1])} (the "
                    "parts of a mixture need the same style=)",
                    seen=show(value),
                )


def _kind(value: object) -> type:
    return float if type(value) is int else type(value)


def show(value: object) -> str:
    """A short sight of a value with its type, for messages."""
    text = repr(value)
    return f"{type(value).__name__} {text if len(text) <= 80 else text[:80] + '…'}"
