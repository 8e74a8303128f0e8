"""What a browser would find on a page, without a browser."""

import base64
import gzip
import html.parser
import json
from pathlib import Path
from typing import Any


class Page(html.parser.HTMLParser):
    """What a browser would find: elements with their attributes, and the text of each script."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: dict[str, str] = {}
        self.words: list[str] = []
        self._inside: str | None = None
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag in ("script", "style"):
            self._inside = dict(attrs).get("id") or tag
            self.scripts[self._inside] = ""

    def handle_endtag(self, tag: str) -> None:
        if tag in ("script", "style"):
            self._inside = None

    def handle_data(self, data: str) -> None:
        if self._inside:
            self.scripts[self._inside] += data
        else:
            self.words.append(data)

    def tags(self, name: str) -> list[dict[str, str | None]]:
        return [attrs for tag, attrs in self.elements if tag == name]

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())


def packed(text: str) -> Any:
    """What `payload.pack` put in, unpacked as the page's script does."""
    return json.loads(gzip.decompress(base64.b64decode(text)), parse_constant=_refused)


def _refused(word: str) -> None:
    raise ValueError(f"{word} is no JSON")


def groups(page: Page, name: str) -> list[dict[str, Any]]:
    """The completions that the page holds of a stage."""
    [source] = [a for a in page.tags("script") if a.get("data-name") == name]
    return packed(page.scripts[str(source["id"])])["groups"]


def load(path: Path) -> Page:
    return Page(path.read_text(encoding="utf-8"))
