"""One GRPO optimizer step of given completions, as the loop takes it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from datasets import Dataset
from torch import Tensor

from align.bench.case import Case
from align.bench.configs import common
from align.bench.ours import Ours
from align.bench.rows import given_rewards, rollout
from align.config import Grpo, Sampling
from align.rollout import Request, Sample
from align.stages.grpo import GrpoStage
from align.training.update import Update


class OneUpdate(Ours):
    """One GRPO optimizer step of given completions: `Update.step`, nothing else."""

    def __init__(self, case: Case) -> None:
        config = Grpo(
            **common(case),
            reward=given_rewards,
            steps=1,
            prompts=case.prompts,
            samples=case.group,
            importance="off",
            sampling=Sampling(max_prompt_tokens=case.prompt, max_tokens=256),
        )
        super().__init__(case, config)
        made = rollout(case, self.context.tokenizer)
        # Prompts are told apart by their place: the stage draws them in an order of its own.
        rows = [{"prompt": f"{i}", "group": case.group} for i in range(case.prompts)]
        self.stage = GrpoStage(config, self.context, Dataset.from_list(rows), _Given(made, case))
        kept = self.stage.prompts.kept
        self.stage.prompts.kept = [(row, made.prompts[row]) for row, _ in kept]
        self.stage.config = self.config
        self.batch = self.stage.collect(1)
        self.update = Update(
            self.stage,
            config.optim,
            module=self.context.module,
            optimizer=self.optimizer,
            accelerator=self.accelerator,
        )
        self.context.unwrapped.train()

    def opened(self) -> dict[str, Any]:
        (packs,) = self.batch.minibatches
        trained = sum(pack.sequences for pack in packs)
        assert trained == self.case.prompts * self.case.group, "a completion has no advantage"
        return {"tokens": sum(pack.tokens for pack in packs), "packs": len(packs)}

    def go(self) -> dict[str, Any]:
        (packs,) = self.batch.minibatches
        self.meter.begin()
        loss, norms, _ = self.update.step(packs, self.batch.columns, self.batch.held)
        return self.meter.end() | {"losses": [loss], "norms": [norms["grad_norm"]]}


class _Given:
    """A sampler that hands out completions made beforehand."""

    def __init__(self, made: Any, case: Case) -> None:
        self.answers = {
            tuple(prompt): made.completions[i * case.group : (i + 1) * case.group]
            for i, prompt in enumerate(made.prompts)
        }

    def sync(self, weights: Iterable[tuple[str, Tensor]]) -> None:
        pass

    def sample(self, requests: Sequence[Request]) -> list[list[Sample]]:
        return [
            [
                Sample(ids=ids, logprobs=[0.0] * len(ids), truncated=False)
                for ids in self.answers[tuple(request.prompt)]
            ]
            for request in requests
        ]

    def close(self) -> None:
        pass
