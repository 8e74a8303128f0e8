"""What every process of a run has, told to all of them."""

from __future__ import annotations

from typing import Any

from accelerate import Accelerator
from accelerate.utils import gather_object


def gathered(items: list[Any], accelerator: Accelerator) -> list[Any]:
    """Every process's items, in the order of the processes. All of them have to ask."""
    return gather_object(items) if accelerator.num_processes > 1 else items
