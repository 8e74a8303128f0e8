"""accelerate's configuration: what it will do here, which is not always what it says."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from align.doctor import nvidia
from align.doctor.asked import Asked
from align.terminal.findings import Findings

PORT = 29500  # torch.distributed's and accelerate's default
SEVERAL = ("MULTI_GPU", "FSDP")
ALONE = ("NO", "MULTI_CPU")
OWN = "accelerate launch --config_file recipes/accelerate/"
# Left in a shell by a launcher, they make a lone process wait for others, or be silent.
LEFT = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "ACCELERATE_USE_FSDP", "ACCELERATE_USE_DEEPSPEED")
# What align.processes.sharding refuses, before it is asked.
REFUSED = {
    "fsdp_offload_params": "shard over more GPUs instead",
    "fsdp_activation_checkpointing": "use --compute.gradient-checkpointing true instead",
}


def check_launch(asked: Asked, found: Findings) -> None:
    """The file that will be used, given or the user's default one, and leftover variables."""
    left = [name for name in LEFT if name in os.environ]
    if left:
        said = (
            f"{', '.join(left)} set in this shell: a run takes itself for one of several processes"
        )
        found.warning("launch", said, f"unset {' '.join(left)}")
    for file in files(asked):
        try:
            config = load(file)
        except (OSError, ValueError) as error:
            found.error("launch", f"{file} cannot be read: {error}", _other(asked))
            continue
        before = len(found.found)
        _says(config, file, found)
        if len(found.found) == before:
            found.note("launch", f"{file}: {_described(config)}")
    if not files(asked):
        here = nvidia.visible(len(nvidia.look(min(asked.seconds, 5.0)).gpus))
        kind = ("ddp.yaml" if here > 1 else "gpu.yaml") if here else "cpu.yaml"
        found.note("launch", f"no configuration of accelerate's own; here fits {OWN}{kind}")


def _described(config: Mapping[str, Any]) -> str:
    """What it starts here."""
    kind, count = config["distributed_type"], config.get("num_processes", 1)
    gpus = nvidia.visible(len(nvidia.look(5.0).gpus))
    on = "GPU" if gpus and not config.get("use_cpu") else "CPU"
    if kind in ALONE:
        return f"one process on the {on}"
    how = "weights sharded over them" if kind == "FSDP" else "a copy of the model in each"
    name = kind if on == "GPU" else f"{kind}, which does that where there is no GPU"
    return f"{count} processes on the {on}, {how} ({name})"


def files(asked: Asked) -> list[Path]:
    """The configuration that will be used, if there is one."""
    if asked.accelerate is not None:
        return [asked.accelerate]
    general = os.environ.get("XDG_CACHE_HOME", "~/.cache")
    home = Path(os.environ.get("HF_HOME", f"{general}/huggingface")).expanduser()
    file = home / "accelerate" / "default_config.yaml"
    return [file] if file.is_file() else []


def load(file: Path) -> dict[str, Any]:
    """A configuration's keys. Raises OSError, or ValueError where it is none."""
    try:
        config = yaml.safe_load(file.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise ValueError(" ".join(str(error).split())) from error
    if not isinstance(config, dict):
        raise ValueError(f"it holds a {type(config).__name__}, no keys with values")
    # Unquoted, YAML reads NO as false, and accelerate takes that for one process.
    config["distributed_type"] = config.get("distributed_type") or "NO"
    return config


def meeting(asked: Asked) -> tuple[int, bool]:
    """The port where processes meet (0: a free one is chosen), and whether it must be free: on one
    machine accelerate takes another one instead.
    """
    for file in files(asked):
        try:
            config = load(file)
        except (OSError, ValueError):
            continue
        port = config.get("main_process_port")
        machines = config.get("num_machines", 1) if config["distributed_type"] in SEVERAL else 1
        needed = machines > 1 and not config.get("machine_rank")
        return (PORT if port is None else int(port)), needed
    return PORT, False


def read_by_accelerate(refusals: Mapping[str, str | None], asked: Asked, found: Findings) -> None:
    """What accelerate itself says against the files; refusals: by file, None for nothing."""
    for file, why in refusals.items():
        try:
            load(Path(file))
        except (OSError, ValueError):
            continue  # said by check_launch
        if why is not None:
            found.error("launch", f"accelerate does not take {file}: {why}", _other(asked))


def _other(asked: Asked) -> str:
    given = asked.accelerate is not None
    return "compare it with recipes/accelerate/*.yaml" if given else f"{OWN}cpu.yaml …"


def _says(config: Mapping[str, Any], file: Path, found: Findings) -> None:
    """Everything about one file."""
    kind = config["distributed_type"]
    if kind not in SEVERAL + ALONE:
        said = f"{file}: distributed_type {kind} is not supported"
        found.error("launch", said, f"{OWN}fsdp2.yaml, or ddp.yaml")
        return
    count, machines = config.get("num_processes", -1), config.get("num_machines", 1)
    if not isinstance(count, int) or count < 1:
        if kind != "NO":
            said = f"{file}: num_processes is {count!r}"
            found.error("launch", said, f"num_processes: 2 in {file}, or --num_processes 2")
        count = 1
    if count > 1 and kind in ALONE and not config.get("mpirun_config"):
        found.warning(
            "launch",
            f"{file}: distributed_type {kind} starts one process, whatever num_processes {count} "
            "says (so does accelerate launch --cpu --num_processes 2)",
            f"{OWN}ddp_cpu.yaml, or distributed_type: MULTI_GPU, which computes on CPUs as well",
        )
    if kind in SEVERAL:
        _machines(config, count, machines, file, found)
        _against_gpus(config, count // max(machines, 1), file, found)
    if kind == "FSDP":
        _fsdp(config.get("fsdp_config") or {}, file, found)
    _precision(config, file, found)


def _machines(
    config: Mapping[str, Any], count: int, machines: int, file: Path, found: Findings
) -> None:
    if machines < 2:
        return
    if count % machines:
        said = f"{file}: {count} processes cannot be shared out over {machines} machines"
        found.error("launch", said, f"num_processes: {machines * max(1, count // machines)}")
    if not config.get("main_process_ip"):
        said = f"{file}: {machines} machines and no main_process_ip"
        found.error("launch", said, "--main_process_ip ADDRESS of machine 0")
    if not 0 <= config.get("machine_rank", 0) < machines:
        said = f"{file}: machine_rank {config['machine_rank']} of {machines} machines"
        found.error("launch", said, f"--machine_rank 0, to {machines - 1} on the last")


def _against_gpus(config: Mapping[str, Any], count: int, file: Path, found: Findings) -> None:
    """count: processes on this machine."""
    gpus = nvidia.visible(len(nvidia.look(5.0).gpus))
    chosen = str(config.get("gpu_ids", "all"))
    if chosen not in ("all", "None"):
        gpus = min(gpus, len(chosen.split(","))) if gpus else 0
    cores = len(os.sched_getaffinity(0))
    if gpus and count > gpus and not config.get("use_cpu"):
        said = f"{file}: {count} processes on {gpus} GPUs; two on one GPU cannot talk over NCCL"
        found.error("launch", said, f"--num_processes {gpus}")
    elif gpus > count:
        said = f"{file}: {count} processes use {count} of {gpus} GPUs"
        found.warning("launch", said, f"--num_processes {gpus}")
    elif not gpus and count > cores:
        said = f"{file}: no GPU here, and {count} processes on {cores} cores cannot work"
        like = "fsdp_cpu.yaml" if config["distributed_type"] == "FSDP" else "ddp_cpu.yaml"
        found.error("launch", said, f"{OWN}{like}")


def _fsdp(config: Mapping[str, Any], file: Path, found: Findings) -> None:
    version = config.get("fsdp_version", 1)
    if str(version) != "2":
        said = f"{file}: fsdp_version {version}: stages shard with FSDP2 alone"
        found.error("launch", said, f"fsdp_version: 2 under fsdp_config in {file}")
    for name, instead in REFUSED.items():
        if str(config.get(name, False)).lower() == "true":
            found.error("launch", f"{file}: {name}: true is not supported", instead)


def _precision(config: Mapping[str, Any], file: Path, found: Findings) -> None:
    precision = config.get("mixed_precision")
    right = f'mixed_precision: "no" in {file}; --compute.precision bf16|fp32 is what counts'
    if isinstance(precision, bool):
        said = f"{file}: mixed_precision without quotes is read as {str(precision).lower()}"
        found.error("launch", f"{said}, which accelerate cannot take", right)
    elif precision not in (None, "no"):
        said = f"{file}: mixed_precision {precision} is not used: stages autocast themselves"
        found.warning("launch", said, right)
