"""TRL's trainers of each case, at their defaults but for what the settings name."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from datasets import Dataset

from align.bench.case import Case
from align.bench.configs import step_config, wake
from align.bench.peers import Gate, Peer
from align.bench.rows import given_rewards, rollout
from align.training.meter import Meter


class GrpoUpdate(Peer):
    """GRPOTrainer on given completions: generation is replaced, and its scored batch is kept, so
    that the clock sees forward, backward and optimizer alone.
    """

    def trainer(self, gate: Gate) -> Any:
        from trl import GRPOConfig, GRPOTrainer

        case = self.case
        total = case.prompts * case.group
        made = rollout(case, self.tokenizer)
        arguments = self.arguments(
            gradient_accumulation_steps=total // case.peer.micro_batch,
            num_generations=case.group,
            max_completion_length=256,
            beta=0.0,
            loss_type="dapo",
            epsilon_high=0.28,
        )
        trainer = GRPOTrainer(
            model=case.model,
            reward_funcs=given_rewards,
            args=GRPOConfig(**arguments),
            train_dataset=Dataset.from_list([{"prompt": "a", "group": case.group}] * case.prompts),
            processing_class=self.tokenizer,
        )
        asked = [prompt for prompt in made.prompts for _ in range(case.group)]
        texts = self.tokenizer.batch_decode(made.completions)
        generated = (asked, made.completions, None, texts, None, {}, None, None)
        trainer._generate = lambda prompts: generated
        score, kept = trainer._generate_and_score_completions, []

        def once(inputs: Any) -> Any:
            if not kept:
                kept.append(score(inputs))
            return dict(kept[0])

        trainer._generate_and_score_completions = once
        return trainer


class GrpoSteps(Peer):
    """GRPOTrainer as it is, with `generate` of transformers and our rewards."""

    def trainer(self, gate: Gate) -> Any:
        trainer = self.plain_trainer()
        wake(step_config(self.case))
        total = self.case.prompts * self.case.group
        _clock(trainer, "_generate", gate, "sample")
        _clock(trainer, "_calculate_rewards", gate, "score")
        whole, kept = trainer._generate_and_score_completions, []

        def counted(inputs: Any) -> Any:
            found = kept[0] if kept else whole(inputs)
            if self.case.trial and not kept:
                kept.append(found)
            gate.more |= {
                "completions": total,
                "generated": int(found["completion_mask"].sum()),
                "idle_groups": trainer._metrics["train"]["frac_reward_zero_std"][-1],
            }
            return dict(found)

        trainer._generate_and_score_completions = counted
        return trainer

    def plain_trainer(self, **more: Any) -> Any:
        """As a user makes it."""
        from trl import GRPOConfig, GRPOTrainer

        case = self.case
        config = step_config(case)
        total = case.prompts * case.group
        weighed = config.reward.terms
        arguments = self.arguments(
            gradient_accumulation_steps=total // case.peer.micro_batch,
            num_generations=case.group,
            max_completion_length=case.max_tokens,
            temperature=config.sampling.temperature,
            reward_weights=[weight for weight, _ in weighed],
            beta=0.0,
            loss_type="dapo",
            epsilon_high=config.eps_high,
            use_transformers_paged=case.peer.generation == "paged",
            **more,
        )
        return GRPOTrainer(
            model=case.model,
            reward_funcs=[reward for _, reward in weighed],
            args=GRPOConfig(**arguments),
            train_dataset=config.data.rows(),
            processing_class=self.tokenizer,
        )


class Passes(Peer):
    """DPOTrainer, RewardTrainer, SFTTrainer on the token ids that our side wrote, in that order."""

    def __init__(self, case: Case) -> None:
        super().__init__(case)
        rows = json.loads((Path(case.scratch) / f"{case.kind}.json").read_text())
        self.rows = Dataset.from_list(rows)
        self.fresh = case.model
        if case.kind == "reward-model":
            self.fresh = str(Path(case.scratch) / "reward_model")
        self.steps = -(-len(self.rows) // case.batch)
        self.packs = 0

    def trainer(self, gate: Gate) -> Any:
        build = {"dpo": self._dpo, "reward-model": self._reward, "sft": self._sft}
        return build[self.case.kind]()

    def opened(self) -> dict[str, Any]:
        return {"rows": len(self.rows), "packs": self.packs}

    def _arguments(self, **more: Any) -> dict[str, Any]:
        return self.arguments(
            learning_rate=1e-6, train_sampling_strategy="sequential", **more
        ) | {"max_length": self.case.max_tokens}  # fmt: skip

    def _accumulation(self) -> int:
        return max(1, self.case.batch // self.case.peer.micro_batch)

    def _dpo(self) -> Any:
        from trl import DPOConfig, DPOTrainer

        class Given(DPOTrainer):
            """Rows that are token ids already."""

            def _prepare_dataset(self, dataset: Any, *_: Any, **__: Any) -> Any:
                return dataset

        return Given(
            model=self.case.model,
            args=DPOConfig(**self._arguments(gradient_accumulation_steps=self._accumulation())),
            train_dataset=self.rows,
            processing_class=self.tokenizer,
        )

    def _reward(self) -> Any:
        from trl import RewardConfig, RewardTrainer

        arguments = self._arguments(gradient_accumulation_steps=self._accumulation())
        return RewardTrainer(
            model=self.fresh,
            args=RewardConfig(**arguments),
            train_dataset=self.rows,
            processing_class=self.tokenizer,
        )

    def _sft(self) -> Any:
        """All rows are one optimizer step, so that it does not matter which packs they fall in."""
        from trl import SFTConfig, SFTTrainer

        arguments = self._arguments(
            packing=self.case.peer.packing, shuffle_dataset=False, completion_only_loss=True
        )
        trainer = SFTTrainer(
            model=self.case.model,
            args=SFTConfig(**arguments),
            train_dataset=self.rows,
            processing_class=self.tokenizer,
        )
        self.packs = len(trainer.train_dataset)
        trainer.args.gradient_accumulation_steps = -(-self.packs // self.case.peer.micro_batch)
        return trainer


def runner(case: Case) -> Peer:
    kinds: dict[str, type[Peer]] = {"update": GrpoUpdate, "step": GrpoSteps}
    return kinds.get(case.kind, Passes)(case)


def _clock(trainer: Any, name: str, gate: Gate, part: str) -> None:
    """Add up the seconds of a method of the trainer in what the gate answers."""
    inner = getattr(trainer, name)

    def timed(*args: Any, **kwargs: Any) -> Any:
        meter = Meter(gate.case.device)
        meter.start()
        found = inner(*args, **kwargs)
        parts = gate.more.setdefault("parts", {})
        parts[part] = parts.get(part, 0.0) + meter.passed()
        return found

    setattr(trainer, name, timed)
