"""What every algorithm here does with an unreduced loss: its mean, one step of Adam."""

import torch
from torch import Tensor, nn

MAX_GRADIENT_NORM = 0.5


class Learner:
    """Adam; the learning rate falls linearly to 0 over `updates` calls of `end_update`, so that
    the policy at the end is a settled one."""

    def __init__(self, *modules: nn.Module, learning_rate: float, updates: int) -> None:
        self.parameters = [p for module in modules for p in module.parameters()]
        self.optimizer = torch.optim.Adam(self.parameters, lr=learning_rate)
        self.schedule = torch.optim.lr_scheduler.LinearLR(
            self.optimizer, start_factor=1.0, end_factor=0.0, total_iters=updates
        )

    def step(self, loss: Tensor) -> None:
        self.optimizer.zero_grad()
        loss.mean().backward()
        nn.utils.clip_grad_norm_(self.parameters, MAX_GRADIENT_NORM)
        self.optimizer.step()

    def end_update(self) -> None:
        self.schedule.step()
