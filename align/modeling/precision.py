"""What a product of matrices is computed in."""

from __future__ import annotations

import torch


def computed_in(device: torch.device | str, dtype: torch.dtype) -> torch.dtype:
    """Autocast's type where that is on for the device, else the operands' own."""
    kind = torch.device(device).type
    return torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else dtype
