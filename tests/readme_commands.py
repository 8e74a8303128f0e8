"""What README and the pages of docs/ say can be typed: read out of them, and run in a small way.

A block of shell is given to bash, in which every program is a function that writes down how it was
called: so continuation lines, loops, quotes, comments and assignments mean what they mean to a
reader's shell, and a program that no test knows is "command not found". What is called is then run
by forks of the nursery of `runs`, which are set up by the functions at the end of this file.
"""

import os
import runpy
import subprocess
import sys
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from markdown_it import MarkdownIt

REPOSITORY = Path(__file__).resolve().parent.parent
PAGES = (REPOSITORY / "README.md", *sorted((REPOSITORY / "docs").glob("*.md")))
PROGRAMS = ("python", "accelerate", "make", "pytest", "vllm")
LANGUAGES = ("sh", "python", "json")
RECORD = """
record() {
  local file="$CALLS/$BASHPID-$((number++))"
  /usr/bin/env -0 > "$file.env"
  printf '%s\\0' "$@" > "$file.call"
}
number=0
"""


@dataclass(frozen=True, kw_only=True)
class Block:
    """A fenced block: where it begins, its language, its text."""

    page: Path
    line: int
    language: str
    text: str

    @property
    def file(self):
        """Where a reader is told to write it: a path that a leading comment begins with."""
        first = self.text.partition("\n")[0].removeprefix("#").split()
        return first[0] if self.text.startswith("#") and first[0].endswith(".py") else None


@dataclass(frozen=True, kw_only=True)
class Call:
    """A program as a shell calls it; what the line sets for it alone is in `sets`."""

    words: tuple[str, ...]
    sets: dict[str, str]

    def __str__(self):
        return " ".join([*(f"{name}={value}" for name, value in self.sets.items()), *self.words])


def _tokens(page):
    return MarkdownIt("commonmark").enable("table").parse(page.read_text())


def blocks(page):
    """Every fenced block of a page."""
    return [
        Block(page=page, line=each.map[0] + 1, language=each.info.strip(), text=each.content)
        for each in _tokens(page)
        if each.type in ("fence", "code_block")
    ]


def _inline(page, kind):
    return [child for each in _tokens(page) for child in each.children or [] if child.type == kind]


def spans(page):
    """Every piece of code inside a sentence or a table."""
    return [" ".join(each.content.split()) for each in _inline(page, "code_inline")]


def links(page):
    """Addresses of links and pictures."""
    found = [each.attrs["href"] for each in _inline(page, "link_open")]
    return found + [each.attrs["src"] for each in _inline(page, "image")]


def anchors(page):
    """What a link may name after #, as GitHub makes it of headings."""
    tokens = _tokens(page)
    titles = [inline.content for each, inline in pairwise(tokens) if each.type == "heading_open"]
    kept = ("".join(c for c in title.lower() if c.isalnum() or c in " -") for title in titles)
    return {title.replace(" ", "-") for title in kept}


def called(text, folder):
    """The calls that bash makes of a block, in their order. Raises CalledProcessError for what is
    no shell, or a program that is not among PROGRAMS.
    """
    calls = folder / ".calls"
    calls.mkdir()
    functions = [f'{name}() {{ record {name} "$@"; }}' for name in PROGRAMS]
    script = "\n".join(["set -euo pipefail", RECORD, *functions, text])
    environment = {"PATH": "/nonexistent", "CALLS": str(calls)}
    done = subprocess.run(
        ["/bin/bash", "-c", script], cwd=folder, env=environment, capture_output=True, text=True
    )
    files = sorted(calls.glob("*.call"), key=lambda file: file.stat().st_mtime_ns)
    found = [
        Call(
            words=tuple(file.read_text().split("\0")[:-1]),
            sets=_sets(file.with_suffix(".env").read_text(), environment),
        )
        for file in files
    ]
    for file in calls.iterdir():
        file.unlink()
    calls.rmdir()
    assert done.returncode == 0, f"{done.stderr}\nin the block\n{text}"
    return found


# What bash, and an activated environment, set by themselves.
OWN = ("_", "PWD", "OLDPWD", "SHLVL", "PATH", "VIRTUAL_ENV", "VIRTUAL_ENV_PROMPT", "PS1", "CALLS")


def _sets(text, given):
    pairs = (each.split("=", 1) for each in text.split("\0")[:-1])
    return {name: value for name, value in pairs if name not in (*OWN, *given)}


# What follows runs in a fork of the nursery, which goes no further: each ends the process.


def as_script(folder, script, args):
    """What `python SCRIPT ARGS` does in that folder, whose recipes are the ones there are."""
    import recipes

    os.chdir(folder)
    recipes.__path__ = [str(Path(folder) / "recipes")]
    sys.argv = [script, *args]
    runpy.run_path(script, run_name="__main__")
    raise SystemExit(0)


def planned_only(folder, script, args):
    """The bench up to where it would measure: arguments, and every case that follows from them."""
    import align.bench.run
    from align.bench.plan import planned

    def plan(arguments):
        cases = planned(arguments, model=arguments.model, scratch=Path())
        print(f"{len(cases)} cases")
        return 0 if cases else 1

    align.bench.run.run = plan
    as_script(folder, script, args)


def as_server(args):
    """vLLM's own reading of a server's arguments."""
    from vllm.entrypoints.launchers.cli_args import make_arg_parser, validate_parsed_serve_args
    from vllm.utils.argparse_utils import FlexibleArgumentParser

    validate_parsed_serve_args(make_arg_parser(FlexibleArgumentParser()).parse_args(args))
    raise SystemExit(0)


def collect(args):
    """What pytest would run."""
    import pytest

    os.chdir(REPOSITORY)
    raise SystemExit(int(pytest.main(["--collect-only", "-q", "-p", "no:cacheprovider", *args])))
