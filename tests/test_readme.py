"""Every command, block of code, flag, file and link of README.md and docs/ is what it says.

How each is covered:

- A stage's script, run.py, evaluate.py, report.py, doctor.py, plan.py: run for real, in a folder in
  which a reader's files lie, in the order of the page. Commands stay as they are; what is put in
  place of a name is in `readme_small.PUT`, and `readme_small.small` appends flags that make runs
  seconds long: few steps, few tokens, a random model where weights or a hub would be needed.
- sample.py: a random model is never right, so it is run up to "not one of the samples was kept".
- `accelerate launch`: accelerate's own parser and its configuration file; the script then runs in
  as many processes as two cores bear: two over gloo where the file starts several (sharded where it
  is FSDP), one else. Real launchers are started in test_lost_process and test_chain.
- run.py of the R1 chain: `--dry-run`, as a random model's answers are never right and so nothing is
  kept; the chain with rewards that it can earn is run in test_chain_kills.
- bench.py: arguments and the cases that follow; measuring takes ten minutes (see test_bench).
- vLLM: its own parser of the server's arguments; the server itself is started in test_server_vllm.
- make: `make -n`; CI runs `make test`, and what `make demo` runs is run in small here.
- pytest: its own collection.
"""

# ruff: noqa: F401, F811 (fixtures come by import)
import dataclasses
import json
import pkgutil
import re
import runpy
import typing
from pathlib import Path

import pytest
import readme_commands as commands
import runs
from readme_reader import fork, reader, server, weights, write
from readme_small import run_call, run_code, serve, stages

import data
from align import recipe
from align.config import Evaluation, Stage

PATHS = re.compile(r"(scripts|tests|recipes|docs|align|data|rewards)/[\w./-]*\w")
NAMES = re.compile(r"(rewards|data|align)(\.\w+)+")
WORDS = re.compile(r"(make|pytest|python|accelerate|vllm|pip|hf|scripts/\w+\.py) .+", re.DOTALL)


# A page, read from top to bottom.


@pytest.mark.parametrize("page", commands.PAGES, ids=lambda page: page.stem)
def test_every_block_of_a_page_runs(page, reader, server):
    """In its order: later blocks use what earlier ones wrote."""
    for block in commands.blocks(page):
        assert block.language in commands.LANGUAGES, f"{page.name}:{block.line} names no language"
        if block.language == "json":
            write(reader / "shown.jsonl", [json.loads(line) for line in block.text.splitlines()])
            data.validate.check_rows(data.resolve("shown.jsonl").rows(), "sft")
        elif block.language == "python":
            run_code(block, reader)
        else:
            for call in commands.called(block.text, reader):
                run_call(call, reader, server)


# What stands inside sentences.


@pytest.mark.parametrize("page", commands.PAGES, ids=lambda page: page.stem)
def test_every_command_inside_a_sentence_is_covered(page, reader, server):
    files = set()
    for span in commands.spans(page):
        if not WORDS.fullmatch(span):
            continue
        line = f"python {span}" if span.startswith("scripts/") else span
        (call,) = commands.called(line, reader)
        if call.words[0] == "pytest":
            files |= {word for word in call.words[1:] if word.startswith("tests/")}
            assert set(call.words[1:]) - files <= {"-m", "long"}, call
        else:
            run_call(call, reader, server)
    if files:
        fork(reader, "collect", sorted(files))


@pytest.mark.parametrize("page", commands.PAGES, ids=lambda page: page.stem)
def test_every_file_link_and_name_is_there(page):
    text = page.read_text()
    for span in commands.spans(page):
        if PATHS.fullmatch(span):
            assert (runs.REPOSITORY / span).exists(), span
        if match := NAMES.match(span):
            assert _resolves(match[0]), span
    for address in commands.links(page):
        if "://" in address:
            continue
        name, _, anchor = address.partition("#")
        target = (page.parent / name).resolve() if name else page
        assert target.is_file(), f"{page.name}: {address}"
        assert not anchor or anchor in commands.anchors(target), f"{page.name}: {address}"
    assert not re.search(r"/(home|root|tmp|work)/", text)


def _resolves(name):
    try:
        pkgutil.resolve_name(name)
    except (ImportError, AttributeError):
        return False
    return True


@pytest.fixture(scope="module")
def known_flags():
    """Every flag of every script and of accelerate's launcher, without a stage's name before it."""
    from accelerate.commands.launch import launch_command_parser

    from align.chain.run import ChainRun
    from align.doctor.asked import Asked

    owners = [(each, None) for each in (ChainRun, Evaluation, Asked, *stages(Stage))]
    for script in (runs.REPOSITORY / "scripts").glob("*.py"):
        space = runpy.run_path(str(script))
        owners += [
            (each, space if each.__module__ == "<run_path>" else None)
            for each in space.values()
            if _is_config(each)
        ]
    found = {word for each in launch_command_parser()._actions for word in each.option_strings}
    return found | {f"--{name}" for owner, space in owners for name in _fields(owner, space)}


def _is_config(value):
    return isinstance(value, type) and dataclasses.is_dataclass(value)


def _fields(owner, space=None):
    """Names as flags have them, parts of parts with a dot."""
    hints = typing.get_type_hints(owner, space)
    for field in dataclasses.fields(owner):
        name = field.name.strip("_").replace("_", "-")
        yield name
        if _is_config(hints[field.name]):
            yield from (f"{name}.{part}" for part in _fields(hints[field.name]))


@pytest.mark.parametrize("page", commands.PAGES, ids=lambda page: page.stem)
def test_every_flag_inside_a_sentence_exists(page, known_flags):
    parts = [part.name for name in recipe.names() for part in recipe.load(name).stages]
    for span in commands.spans(page):
        for flag in re.findall(r"(?<![\w-])--[a-z][\w.-]*", span):
            head, _, rest = flag[2:].partition(".")
            assert flag in known_flags or (head in parts and f"--{rest}" in known_flags), span


# That the tests above see what they are for.


@pytest.mark.parametrize(
    "line",
    [
        "nvidia-smi",
        "curl http://127.0.0.1:8000/health",
        "python scripts/none.py --recipe tiny",
        "python -m http.server",
        "python scripts/report.py",
        "python scripts/sft.py --recipe tiny --optim.rate 1",
        "python scripts/run.py --recipe tiny --dry-run --sft.optim.lrr 1",
        "accelerate launch --config_file recipes/accelerate/none.yaml scripts/sft.py --recipe tiny",
        "accelerate launch --proceses 2 scripts/sft.py --recipe tiny",
        "accelerate launch scripts/sft.py --recipe tniy",
        "python scripts/sft.py --recipe tiny --data none.jsonl",
        "python scripts/bench.py --only updates",
        "make demos",
        "pytest tests/test_none.py",
        "for n in 1 2; do",
    ],
)
def test_a_command_that_is_wrong_or_covered_by_nothing_fails(line, reader, server):
    with pytest.raises((AssertionError, SystemExit, recipe.RecipeError)):
        for call in commands.called(line, reader):
            run_call(call, reader, server)


def test_a_shell_reads_what_is_written(reader):
    text = """
    for rank in 0 1; do
      A=1 python x.py --rank $rank \\
        "two words" &   # a comment
    done; wait
    make demo OUT=there
    """
    calls = commands.called(text, reader)
    ranks = sorted(calls[:2], key=str)
    assert [call.words for call in ranks] == [
        ("python", "x.py", "--rank", str(rank), "two words") for rank in (0, 1)
    ]
    assert calls[0].sets == {"A": "1"}
    assert (calls[2].words, calls[2].sets) == (("make", "demo", "OUT=there"), {})


def test_pages_link_to_one_another_and_ci_runs_make_test():
    linked = {Path(link).name for link in commands.links(commands.PAGES[0])}
    assert {page.name for page in commands.PAGES[1:]} <= linked
    assert "make test" in (runs.REPOSITORY / ".ci" / "run").read_text()


@pytest.mark.vllm
def test_vllm_knows_its_servers_flags(reader):
    told = [
        call
        for page in commands.PAGES
        for block in commands.blocks(page)
        if block.language == "sh" and "vllm" in block.text
        for call in commands.called(block.text, reader)
        if call.sets
    ]
    assert len(told) == 2
    for call in told:
        fork(reader, "as_server", serve(call.words[0], list(call.words[1:]), call.sets))
    with pytest.raises(AssertionError, match="max-model-length"):
        fork(reader, "as_server", ["--model", "tiny", "--max-model-length", "8"])
