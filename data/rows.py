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

import hashlib
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

if TYPE_CHECKING:
    from datasets import Dataset

Row = dict[str, Any]
Message = dict[str, str]

ROLES = ("system", "user", "assistant", "tool")
PART = 2_000  # rows that are held as Python's objects while a table is made
LARGE = 256 << 20  # bytes of a table beyond which is asked whether there is room for more
SPARE = 0.5  # of a table's size: what a stage needs at least to work on its rows
CONTENT_COLUMNS = ("prompt", "completion", "messages", "chosen", "rejected")


class DataError(ValueError):
    """Data that cannot be used as it is; the message says what, where, and what to type."""


class RowError(DataError):
    """The first bad row: its index, the column, what was expected there and what was seen."""

    def __init__(self, *, row: int, column: str, expected: str, seen: str) -> None:
        self.row, self.column, self.expected, self.seen = row, column, expected, seen
        super().__init__(f"{nth(row)}, column {column!r}: expected {expected}, found {seen}")


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

    Taken in parts, so that what is held as Python's objects is a part alone. Raises RowError where
    a column is of two kinds (chat messages here, a plain string there; true here, "true" there) or
    a value is none that a table holds, such as a number of more than 64 bits, DataError where
    memory runs out.
    """
    import pyarrow as pa
    from datasets import Dataset

    found: list[Dataset] = []
    schema: pa.Schema | None = None
    count = held = 0
    for part in _parts(iter(rows)):
        made = _part(part, count)
        table = made.data.table
        try:
            both = [table.schema] if schema is None else [schema, table.schema]
            schema = pa.unify_schemas(both, promote_options="permissive")
        except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
            raise _named(part, count, {each.name: each.type for each in schema}, error) from error
        found.append(made)
        count += len(part)
        held += table.nbytes
        _check_room(count, held)
    if len(found) == 1:
        return found[0]
    tables = [each.data.table.replace_schema_metadata(None) for each in found]
    # Its own would be taken of a second copy of the whole table.
    fingerprint = hashlib.sha256("".join(each._fingerprint for each in found).encode())
    return Dataset(
        pa.concat_tables(tables, promote_options="permissive"),
        fingerprint=fingerprint.hexdigest()[:16],
    )


def _parts(rows: Iterator[Row]) -> Iterator[list[Row]]:
    """At least one, though it may be empty."""
    yield list(islice(rows, PART))
    while part := list(islice(rows, PART)):
        yield part


def _part(rows: list[Row], first: int) -> Dataset:
    """The table of some rows; first: the number of the first, for messages."""
    import pyarrow as pa
    from datasets import Dataset

    # An ordered union: from_list would look at the first row's keys alone.
    columns = list(dict.fromkeys(column for row in rows for column in row))
    try:
        return Dataset.from_dict({column: [row.get(column) for row in rows] for column in columns})
    except (pa.ArrowInvalid, pa.ArrowTypeError, OverflowError, UnicodeEncodeError) as error:
        raise _named(rows, first, {}, error) from error


def _named(rows: list[Row], first: int, types: dict[str, Any], error: Exception) -> DataError:
    """The first row whose value does not fit those before it, of which those of earlier parts have
    these types.
    """
    for column in dict.fromkeys(column for row in rows for column in row):
        values = [row.get(column) for row in rows]
        if _fit(values, types.get(column)):
            continue
        fitting, wrong = 0, len(values)  # of the rows from the first, all fit, not all fit
        while wrong - fitting > 1:
            middle = (fitting + wrong) // 2
            fits = _fit(values[:middle], types.get(column))
            fitting, wrong = (middle, wrong) if fits else (fitting, middle)
        before = next((row for row in range(fitting) if values[row] is not None), None)
        kind = "plain text, numbers of 64 bits, lists and objects of them"
        if before is not None:
            kind = f"the same kind as in the {nth(first + before)}, {show(values[before])}"
        elif column in types:
            kind = f"the same kind as in the rows before, {types[column]}"
        return RowError(
            row=first + fitting,
            column=column,
            expected=f"{kind} (the parts of a mixture need the same style=)",
            seen=show(values[fitting]),
        )
    last = nth(first + len(rows) - 1)
    return DataError(f"the {nth(first)} to the {last} do not fit in one table: {error}")


def _fit(values: list[Any], known: Any) -> bool:
    """Whether these values are of one kind, and of the known one."""
    import pyarrow as pa

    try:
        kinds = [pa.array(values).type, *([] if known is None else [known])]
        schemas = [pa.schema([("", kind)]) for kind in kinds]
        pa.unify_schemas(schemas, promote_options="permissive")
    except (pa.ArrowInvalid, pa.ArrowTypeError, OverflowError, UnicodeEncodeError):
        return False
    return True


def _check_room(rows: int, held: int) -> None:
    """Raises DataError before memory runs out, which would end the process without a word."""
    import psutil

    free = psutil.virtual_memory().available
    if held > LARGE and free < max(LARGE, held * SPARE):
        raise DataError(
            f"memory runs out: {rows:,} rows take {held / 2**30:.1f} GiB, and {free / 2**30:.1f} "
            "GiB are free. Take fewer, as in --data my/rows.jsonl?limit=100000, or shorter ones"
        )


def nth(place: int) -> str:
    """`1st row` for 0, as a reader counts: beside line numbers a bare `row 0` would be misread."""
    number = place + 1
    teens = 10 <= number % 100 < 20
    return f"{number:,}{'th' if teens else {1: 'st', 2: 'nd', 3: 'rd'}.get(number % 10, 'th')} row"


def show(value: object) -> str:
    """A short sight of a value with its type, for messages."""
    text = repr(value)
    return f"{type(value).__name__} {text if len(text) <= 80 else text[:80] + '…'}"
