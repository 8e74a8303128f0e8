"""Memory, threads, disks and the clock of a machine, and what one recipe needs of it."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

from doctor_tools import clean, listening, looked, only

from align import recipe as recipes
from align.config import Engine
from align.doctor import clock, disk, memory, needs, threads
from align.doctor.asked import Asked
from data import Arithmetic, Local, Mixture, NuminaMathTIR


def test_memory_of_machine_container_and_shared(tmp_path):
    little = looked(memory.room, 2**29, "0.5 GiB free", limited=True)
    only(little, "error", "memory", cure="docker run --memory")
    some = looked(memory.room, 4 * 2**30, "4.0 GiB free", limited=False)
    only(some, "warning", "memory", said="4.0 GiB free", cure="--compute.token-budget")
    clean(looked(memory.room, 40 * 2**30, "40 GiB free", limited=False))
    docker = looked(memory.shared_room, 64 * 2**20)
    only(docker, "warning", "shared memory", said="64.0 MiB", cure="--shm-size")
    clean(looked(memory.check_memory, Asked()))


def test_the_tightest_control_group_counts(tmp_path):
    inner = tmp_path / "a" / "b"
    inner.mkdir(parents=True)
    for folder, limit in ((inner, "max"), (inner.parent, f"{8 * 2**30}"), (tmp_path, "max")):
        (folder / "memory.max").write_text(f"{limit}\n")
        (folder / "memory.current").write_text("5\n")
    of_us = tmp_path / "cgroup"
    of_us.write_text("0::/a/b\n")
    assert memory.group_limit(of_us, tmp_path) == (8 * 2**30, 5)
    of_us.write_text("0::/not/here\n")  # as inside a container
    assert memory.group_limit(of_us, tmp_path) is None
    (tmp_path / "memory").mkdir()
    (tmp_path / "memory" / "memory.limit_in_bytes").write_text("1000\n")
    (tmp_path / "memory" / "memory.usage_in_bytes").write_text("10\n")
    of_us.write_text("4:memory:/docker/1\n")
    assert memory.group_limit(of_us, tmp_path) == (1000, 10)
    assert memory.group_limit(tmp_path / "none", tmp_path) is None


def test_threads(tmp_path, monkeypatch):
    for value, said in (("999", "on "), ("two", "no number"), ("0", "no number")):
        monkeypatch.setenv("OMP_NUM_THREADS", value)
        found = looked(threads.check_threads, Asked())
        only(found, "warning", "threads", said=said, cure="unset OMP_NUM_THREADS")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    clean(looked(threads.check_threads, Asked()))
    monkeypatch.setenv("VLLM_CPU_OMP_THREADS_BIND", "auto")
    found = looked(threads.check_threads, Asked())
    only(found, "warning", "threads", cure="unset VLLM_CPU_OMP_THREADS_BIND")
    monkeypatch.delenv("VLLM_CPU_OMP_THREADS_BIND")
    monkeypatch.delenv("OMP_NUM_THREADS")
    (tmp_path / "cpu.max").write_text("100000 100000\n")
    monkeypatch.setattr(threads, "QUOTA", tmp_path / "cpu.max")
    monkeypatch.setattr(threads.os, "sched_getaffinity", lambda _: set(range(8)))
    found = looked(threads.check_threads, Asked())
    only(found, "warning", "threads", said="1.0 of 8 cores", cure="export OMP_NUM_THREADS=1")
    (tmp_path / "cpu.max").write_text("max 100000\n")
    clean(looked(threads.check_threads, Asked()))


def test_disks_that_are_full_or_closed(tmp_path, monkeypatch):
    found = looked(disk.check_disk, Asked(out=Path("/proc/runs")))
    only(found, "error", "disk", said="run folder: cannot write to /proc", cure="--out FOLDER")
    monkeypatch.setenv("HF_HOME", "/proc/cache")
    found = looked(disk.check_disk, Asked(out=tmp_path / "not" / "yet"))
    only(found, "error", "disk", said="the hub's cache: cannot", cure="export HF_HOME=FOLDER")
    assert list(tmp_path.iterdir()) == []
    for free, level, said in ((2**29, "error", "0.5 GiB"), (2 * 2**30, "warning", "checkpoints")):
        monkeypatch.setattr(
            disk.shutil, "disk_usage", lambda _, free=free: SimpleNamespace(free=free)
        )
        found = looked(disk.check_disk, Asked(out=tmp_path))
        only(found, level, "disk", said=f"run folder: {free / 2**30:.1f} GiB", cure="du -xh")
        assert said in str(found.as_json())
    monkeypatch.setattr(disk.os, "statvfs", lambda _: SimpleNamespace(f_files=10**6, f_favail=3))
    found = looked(disk.check_disk, Asked(out=tmp_path))
    only(found, "error", "disk", said="3 more files", cure="du -x --inodes")


def test_a_clock_before_the_project_was_written(monkeypatch):
    clean(looked(clock.check_clock, Asked()))
    monkeypatch.setattr(clock.time, "time", lambda: 86400.0 * 365)
    found = looked(clock.check_clock, Asked())
    only(found, "warning", "clock", said="1971-01-01", cure="timedatectl set-ntp true")


def needed(monkeypatch, tmp_path, *, evaluations=(), **changes):
    tiny = recipes.load("tiny")
    grpo = next(stage for stage in tiny.stages if stage.kind == "grpo")
    values = {"model": "random:recipes/tiny_model", "engine": Engine(kind="hf")} | changes
    recipe = replace(tiny, stages=(replace(grpo, **values),), evaluations=evaluations)
    monkeypatch.setattr(needs.recipes, "load", lambda _: recipe)
    return looked(needs.check, Asked(recipe="tiny", out=tmp_path))


def test_a_recipe_with_all_that_it_needs(tmp_path, monkeypatch):
    clean(needed(monkeypatch, tmp_path))


def test_data_of_a_hub_that_is_away_and_in_no_cache(tmp_path, monkeypatch):
    monkeypatch.setattr(needs, "hub_problem", lambda path: f"no hub for {path}")
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    rows = Mixture(sources=((0.5, NuminaMathTIR()), (0.5, Arithmetic(size=4))))
    found = needed(monkeypatch, tmp_path, data=rows)
    said = "AI-MO/NuminaMath-TIR is not in the local cache, and no hub for datasets/AI-MO/Numi"
    only(found, "warning", "data", said=said, cure="to scripts/run.py --grpo.data …")
    (tmp_path / "cache" / "AI-MO___numina_math-tir").mkdir(parents=True)
    clean(needed(monkeypatch, tmp_path, data=rows))


def test_a_recipe_without_model_data_sampler(tmp_path, monkeypatch):
    found = needed(monkeypatch, tmp_path, model="no/such/folder")
    cure = "FOLDER (to scripts/grpo.py; to scripts/run.py --grpo.model …)"
    only(found, "error", "model", said="no/such/folder", cure=cure)
    found = needed(monkeypatch, tmp_path, data=Local(path="no/rows.jsonl"))
    only(found, "error", "data", said="no file no/rows.jsonl", cure="--data FILE.jsonl")
    with listening() as port:
        pass
    url = f"http://127.0.0.1:{port}"
    found = needed(monkeypatch, tmp_path, engine=Engine(kind="server", url=url))
    only(found, "error", "sampler", said=f"no server answers at {url}", cure=f"--port {port}")
    monkeypatch.setattr(needs, "installed", lambda _: None)
    found = needed(monkeypatch, tmp_path, engine=Engine())
    only(found, "error", "sampler", said="vLLM is not installed", cure="--engine.kind hf")


def test_a_disk_too_small_for_the_stages(tmp_path, monkeypatch):
    smollm2 = next(stage for stage in recipes.load("smollm2").stages if stage.kind == "grpo")
    count = 134_515_008
    kept = min(smollm2.checkpoints.keep + 1, smollm2.steps // smollm2.checkpoints.every)
    assert needs.written(smollm2, count) == 4 * count + 12 * count * kept
    tight = SimpleNamespace(free=2 * 2**30)
    monkeypatch.setattr(needs.shutil, "disk_usage", lambda _: tight)
    found = looked(needs.check, Asked(recipe="smollm2", out=tmp_path))
    only(found, "error", "disk", said="2.0 GiB are free", cure="--STAGE.checkpoints.keep 1")
