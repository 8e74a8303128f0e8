"""What a user's function raised, in one line, with the line of the user's own code that did it."""

import linecache
import sysconfig
import traceback
from pathlib import Path

import rewards

_MOST = 300  # characters
_OURS = {Path(rewards.__file__).resolve().parent.parent / name for name in ("align", "data")}
_OURS |= {Path(rewards.__file__).resolve().parent}
_INSTALLED = {Path(sysconfig.get_path(name)).resolve() for name in ("stdlib", "purelib", "platlib")}


def raised(error: BaseException) -> str:
    """`raised KeyError('gold') at recipes/mine.py, line 12: score = row["gold"]`; without a place
    where no line is the user's, as with an error of a reward of this project. With what first
    rewards of one's own mostly lack.
    """
    said = f"raised {_said(error)}"
    own = [frame for frame in traceback.extract_tb(error.__traceback__) if _own(frame.filename)]
    if own:
        frame = own[-1]
        code = linecache.getline(frame.filename, frame.lineno or 0).strip()
        said += f" at {_near(frame.filename)}, line {frame.lineno}" + (f": {code}" if code else "")
    return said + _hint(said)


def _hint(said: str) -> str:
    if said.startswith("raised TypeError") and "got an unexpected keyword argument" in said:
        return " (end its parameters with **columns: it is given every column, and more)"
    if "'list' object has no attribute" in said or "expected string or bytes-like" in said:
        return " (of a chat a completion is a list of messages, its text completion[-1]['content'])"
    return ""


def _said(error: BaseException) -> str:
    """The error in one short line, also where it cannot say itself."""
    try:
        text = " ".join(repr(error).split())
    except Exception:
        text = f"{type(error).__name__}, which cannot be printed"
    return text if len(text) <= _MOST else f"{text[:_MOST]}…"


def _own(name: str) -> bool:
    """Whether a file is neither this project's nor a library's."""
    path = Path(name)
    if not path.is_absolute():  # what was run from a string
        return False
    return not any(path.resolve().is_relative_to(folder) for folder in _OURS | _INSTALLED)


def _near(name: str) -> str:
    """The path as one would type it here."""
    here = Path.cwd()
    return str(Path(name).relative_to(here) if Path(name).is_relative_to(here) else name)
