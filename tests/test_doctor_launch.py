"""accelerate's configurations that do other than they say."""

import json
from pathlib import Path

import pytest
from doctor_tools import clean, config, gpus, looked, only, tool

from align.doctor import (
    launching,
    probe,
)
from align.doctor.asked import Asked

REPOSITORY = Path(__file__).resolve().parent.parent


@pytest.mark.parametrize("file", sorted((REPOSITORY / "recipes" / "accelerate").glob("*.yaml")))
def test_our_own_configurations(file, monkeypatch):
    monkeypatch.setattr(launching.os, "sched_getaffinity", lambda _: set(range(16)))
    clean(looked(launching.check_launch, Asked(accelerate=file)))


@pytest.mark.parametrize(
    ("changes", "level", "said", "cure"),
    [
        ({"distributed_type": "MULTI_CPU"}, "warning", "starts one process", "ddp_cpu.yaml"),
        ({"distributed_type": "NO"}, "warning", "starts one process", "ddp_cpu.yaml"),
        ({"distributed_type": "DEEPSPEED"}, "error", "not supported", "fsdp2.yaml"),
        ({"num_processes": None}, "error", "num_processes is None", "--num_processes 2"),
        ({"num_processes": 999}, "error", "no GPU here, and 999", "ddp_cpu.yaml"),
        ({"mixed_precision": "bf16"}, "warning", "bf16 is not used", 'mixed_precision: "no"'),
        ({"mixed_precision": False}, "error", "is read as false", 'mixed_precision: "no"'),
        ({"distributed_type": "FSDP"}, "error", "fsdp_version 1", "fsdp_version: 2"),
        ({"num_machines": 3}, "error", "cannot be shared out", "num_processes: 3"),
        ({"num_machines": 2, "machine_rank": 2}, "error", "machine_rank 2", "to 1 on the last"),
        (
            {"num_machines": 2, "main_process_ip": None},
            "error",
            "no main_process_ip",
            "--main_process_ip",
        ),
    ],
)
def test_configurations_that_do_other_than_they_say(tmp_path, changes, level, said, cure):
    found = looked(launching.check_launch, Asked(accelerate=config(tmp_path, **changes)))
    only(found, level, "launch", said=said, cure=cure)


def test_what_a_configuration_starts_here(tmp_path, monkeypatch):
    monkeypatch.setattr(launching.os, "sched_getaffinity", lambda _: {0, 1})
    folder = REPOSITORY / "recipes" / "accelerate"

    def look(name):
        return looked(launching.check_launch, Asked(accelerate=folder / name))

    only(look("ddp_cpu.yaml"), "note", "launch", said="2 processes on the CPU, a copy of the model")
    only(look("fsdp_cpu.yaml"), "note", "launch", said="2 processes on the CPU, weights sharded")
    only(look("cpu.yaml"), "note", "launch", said="one process on the CPU")
    only(look("ddp.yaml"), "error", "launch", said="8 processes on 2 cores", cure="/ddp_cpu.yaml")
    only(look("fsdp2.yaml"), "error", "launch", said="8 processes", cure="/fsdp_cpu.yaml")
    tool(tmp_path, gpus(count=8), monkeypatch)
    only(look("ddp.yaml"), "note", "launch", said="8 processes on the GPU, a copy of the model")
    only(look("gpu.yaml"), "note", "launch", said="one process on the GPU")


@pytest.mark.parametrize("name", launching.REFUSED)
def test_what_stages_refuse_is_refused_here(tmp_path, name):
    from align.processes.sharding import UNSUPPORTED

    assert set(launching.REFUSED) == {each.lower() for each in UNSUPPORTED}
    file = config(tmp_path, distributed_type="FSDP", fsdp_config={"fsdp_version": 2, name: True})
    found = looked(launching.check_launch, Asked(accelerate=file))
    only(found, "error", "launch", said=f"{name}: true", cure=UNSUPPORTED[name.upper()])


def test_more_processes_than_gpus(tmp_path, monkeypatch):
    tool(tmp_path, gpus(count=4), monkeypatch)
    file = config(tmp_path, num_processes=8)
    found = looked(launching.check_launch, Asked(accelerate=file, seconds=60))
    only(found, "error", "launch", said="8 processes on 4 GPUs", cure="--num_processes 4")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1,7,2")
    found = looked(launching.check_launch, Asked(accelerate=file, seconds=60))
    only(found, "error", "launch", said="8 processes on 2 GPUs", cure="--num_processes 2")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    found = looked(launching.check_launch, Asked(accelerate=config(tmp_path), seconds=60))
    only(found, "warning", "launch", said="2 of 4 GPUs", cure="--num_processes 4")


@pytest.mark.parametrize(
    ("text", "said"), [("a: [", "cannot be read"), ("- 1", "holds a list"), (None, "No such file")]
)
def test_no_configuration_at_all(tmp_path, text, said):
    file = tmp_path / "x.yaml"
    if text:
        file.write_text(text)
    found = looked(launching.check_launch, Asked(accelerate=file))
    only(found, "error", "launch", said=said, cure="recipes/accelerate/*.yaml")


def test_the_users_own_default_and_leftover_variables(tmp_path, monkeypatch):
    (tmp_path / "accelerate").mkdir()
    file = config(tmp_path / "accelerate", distributed_type="MULTI_CPU")
    file.rename(file.with_name("default_config.yaml"))
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    monkeypatch.setenv("WORLD_SIZE", "8")
    found = looked(launching.check_launch, Asked())
    only(found, "warning", "launch", said="default_config.yaml: distributed_type MULTI_CPU")
    only(found, "warning", "launch", said="WORLD_SIZE set", cure="unset WORLD_SIZE")


def test_what_accelerate_itself_refuses(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(probe, "torch_facts", dict)
    monkeypatch.setattr(probe.importlib.util, "find_spec", lambda _: None)
    wrong = config(tmp_path, num_procs=2)
    right = REPOSITORY / "recipes" / "accelerate" / "ddp.yaml"
    probe.main([str(wrong), str(right)])
    refusals = json.loads(capsys.readouterr().out.splitlines()[1])["accelerate"]
    asked = Asked(accelerate=wrong)
    found = looked(lambda found: launching.read_by_accelerate(refusals, asked, found))
    assert len(found.found) == 1
    only(found, "error", "launch", said="unknown keys (['num_procs'])", cure="recipes/accelerate")
