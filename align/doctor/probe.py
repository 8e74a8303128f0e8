"""Run as a file of its own, in a process that may break: imports torch, accelerate and vLLM.

    python -P align/doctor/probe.py [ACCELERATE-FILE ...]

Prints a line of JSON for each, as soon as it is known: `{"torch": {…}}`, then `{"accelerate": …}`
where files are given (by file what accelerate says against it, or null), then `{"vllm": {…}}`. What
cannot be imported has `failed`, the exception in a line.
"""

from __future__ import annotations

import importlib.util
import json
import sys
from collections.abc import Callable
from typing import Any


def main(files: list[str]) -> None:
    """Look at each in turn."""
    looks: dict[str, Callable[[], Any]] = {"torch": torch_facts}
    if files:
        looks["accelerate"] = lambda: {file: _refusal(file) for file in files}
    if importlib.util.find_spec("vllm") is not None:
        looks["vllm"] = vllm_facts
    for name, look in looks.items():
        try:
            facts = look()
        except Exception as error:  # whatever a broken installation raises
            facts = {"failed": _in_a_line(error)}
        print(json.dumps({name: facts}), flush=True)


def torch_facts() -> dict[str, Any]:
    """Versions, and every device that CUDA lets this process use (bytes)."""
    import torch

    there = torch.cuda.is_available()
    return {
        "version": torch.__version__,
        "cuda": torch.version.cuda,
        "available": there,
        "archs": torch.cuda.get_arch_list() if there else [],
        "devices": [_device(i) for i in range(torch.cuda.device_count())] if there else [],
        "bf16": torch.cuda.is_bf16_supported(including_emulation=False) if there else None,
        "sum": float(torch.ones(2).sum()),  # also that it computes
    }


def vllm_facts() -> dict[str, Any]:
    """The platform that vLLM chose."""
    from vllm.platforms import current_platform

    return {"platform": current_platform.device_type}


def _device(index: int) -> dict[str, Any]:
    import torch

    about = torch.cuda.get_device_properties(index)
    return {"name": about.name, "capability": [about.major, about.minor]}


def _refusal(file: str) -> str | None:
    from accelerate.commands.config.config_args import load_config_from_file

    try:
        load_config_from_file(file)
    except Exception as error:  # accelerate checks little itself: whatever its classes raise
        return _in_a_line(error)
    return None


def _in_a_line(error: Exception) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())[:300]


if __name__ == "__main__":
    main(sys.argv[1:])
