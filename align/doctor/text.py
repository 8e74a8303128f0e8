"""Whether text is UTF-8 for everything that is started here."""

from __future__ import annotations

import locale
import sys

from align.doctor.asked import Asked
from align.terminal.findings import Findings


def check_text(asked: Asked, found: Findings) -> None:
    """The locale's encoding, which files opened by other libraries get, and stdout's."""
    encoding = locale.getpreferredencoding(False)
    seen = {"files": encoding, "file names": sys.getfilesystemencoding()}
    wrong = [f"{what} {name}" for what, name in seen.items() if not _utf8(name)]
    if wrong:
        said = f"text is not UTF-8 here ({', '.join(wrong)}): libraries misread data and templates"
        found.warning("text", said, "export PYTHONUTF8=1 LC_ALL=C.UTF-8")
    else:
        found.note("text", f"{encoding}, stdout {sys.stdout.encoding}")


def _utf8(name: str) -> bool:
    return name.lower().replace("-", "").replace("_", "") == "utf8"
