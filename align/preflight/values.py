"""Values that are allowed and cannot be meant: a rate of 0, a batch that is larger than the data,
minibatches without a prompt.
"""

from __future__ import annotations

import rewards
from align.config import Distill, Dpo, Passes, Ppo, RewardModel, Rollouts, Training
from align.preflight.knowing import made
from align.preflight.subject import Subject
from align.terminal.findings import Findings
from align.training.optim import schedule
from data.reward_scores import leaves

# Rates that may wreck what is there, and that no training survives, as AdamW moves every weight by
# about the rate: of all weights, of adapters, and of models so tiny that they are drawn at random
# to be tried, which learn at some 3e-3.
FULL, ADAPTERS, TINY = (1e-3, 1e-2), (1e-2, 1e-1), (1e-2, 5e-2)
SMALL = 2_000_000  # parameters of a tiny one
NOTHING = 1e-10
LARGE = 2  # times all that a run sees, from which on a batch is no first try on a few rows
FAR = 0.01  # share of a reward that reaches a completion's first token
NOISE = 5  # a temperature at which any model's samples are


def check(subject: Subject, found: Findings, *, parameters: int) -> None:
    """parameters: of the stage's input."""
    config = subject.config
    if isinstance(config, Training):
        _rates(config, found, parameters)
        _steps(config, len(subject.rows), found)
        _adapters(config, found)
    if isinstance(config, Passes):
        _passes(config, len(subject.rows), subject.processes, found)
    if isinstance(config, Rollouts):
        _overlong(config, found)
    if isinstance(config, Rollouts | Distill):
        _rollouts(config, len(subject.rows), subject.processes, found)


def _rates(config: Training, found: Findings, parameters: int) -> None:
    rates = {"--optim.lr": config.optim.lr}
    if isinstance(config, Ppo):
        rates["--critic-lr"] = config.critic_lr
    full = TINY if parameters < SMALL or made(config) else FULL
    separate = isinstance(config, Ppo) and config.critic == "separate"  # it has no adapters
    for flag, rate in rates.items():
        whole = not config.lora.rank or (flag == "--critic-lr" and separate)
        high, absurd = full if whole else ADAPTERS
        if rate == 0 and flag == "--optim.lr":
            found.error("learning rate", f"{flag} 0: no weight would move", f"{flag} 1e-6")
        elif rate == 0:
            found.warning("learning rate", f"{flag} 0: the critic never learns", f"{flag} 1e-5")
        elif rate >= absurd:
            found.error(
                "learning rate",
                f"{flag} {rate:g}: every step would move each weight by about that much, as much "
                "as weights are large",
                f"give one between 1e-7 and {high:g}, as in {flag} {high / 100:g}",
            )
        elif rate >= high:
            found.warning(
                "learning rate",
                f"{flag} {rate:g} is high, and may wreck what the model of {parameters:,} weights "
                "has learnt",
                f"{flag} {high / 100:g}",
            )
        elif rate < NOTHING:
            found.warning("learning rate", f"{flag} {rate:g}: nothing would move", f"{flag} 1e-6")
    optim = config.optim
    if not all(0 <= beta < 1 for beta in optim.betas):
        found.error(
            "optimizer",
            f"--optim.betas {optim.betas[0]:g} {optim.betas[1]:g} must both be at least 0 and "
            "below 1",
            "--optim.betas 0.9 0.999",
        )
    elif optim.betas[0] > optim.betas[1]:
        found.error(
            "optimizer",
            f"--optim.betas {optim.betas[0]:g} {optim.betas[1]:g}: the first, of the gradient's "
            "mean, is above the second, of its square; the two were exchanged",
            f"--optim.betas {optim.betas[1]:g} {optim.betas[0]:g}",
        )
    if optim.eps < 0 or optim.weight_decay < 0:
        found.error("optimizer", "--optim.eps and --optim.weight-decay must be at least 0",
                    "--optim.eps 1e-8 --optim.weight-decay 0")  # fmt: skip
    elif optim.lr * optim.weight_decay >= 1:
        found.error(
            "optimizer",
            f"--optim.weight-decay {optim.weight_decay:g} at a rate of {optim.lr:g} takes all of "
            "every weight in a step",
            "--optim.weight-decay 0.01",
        )
    elif optim.lr * optim.weight_decay > 0.01:
        found.warning(
            "optimizer",
            f"--optim.weight-decay {optim.weight_decay:g} at a rate of {optim.lr:g} takes "
            f"{optim.lr * optim.weight_decay:.0%} of every weight a step",
            "--optim.weight-decay 0.01",
        )


def _overlong(config: Rollouts, found: Findings) -> None:
    most = config.sampling.max_tokens
    for part in leaves(config.reward):
        if isinstance(part, rewards.SoftOverlong) and most <= part.max_len - part.cache:
            found.warning(
                "reward",
                f"{part.name} begins to count above {part.max_len - part.cache:,} tokens, and "
                f"--sampling.max-tokens {most:,} lets none be so long: it is 0 for all",
                f"give it max_len={most}, cache={max(1, most // 4)} in the recipe, or raise the "
                "limit",
            )


def rounds(config: Training, rows: int) -> int:
    """Steps of the loop, where no row is left out."""
    if isinstance(config, Passes):
        return -(-max(1, round(config.epochs * rows)) // config.batch)
    assert isinstance(config, Rollouts | Distill)
    return config.steps or -(-rows // config.prompts)


def _steps(config: Training, rows: int, found: Findings) -> None:
    total = rounds(config, rows)
    if isinstance(config, Rollouts):
        total *= config.minibatches * config.iterations
    if not any(schedule(config.optim, step, total) for step in range(min(total, 100))):
        found.error(
            "schedule",
            f"the rate is 0 in all {total} optimizer steps (--optim.schedule "
            f"{config.optim.schedule}, --optim.warmup {config.optim.warmup:g})",
            "--optim.schedule constant, or more steps",
        )
    elif config.optim.warmup > 0.5:
        found.warning(
            "schedule",
            f"--optim.warmup {config.optim.warmup:g} is a share of all steps: the rate rises for "
            "most of the run",
            "--optim.warmup 0.05",
        )


def _adapters(config: Training, found: Findings) -> None:
    lora = config.lora
    if lora.rank and lora.alpha <= 0:
        found.error("adapters", f"--lora.alpha {lora.alpha:g}: adapters would add nothing",
                    "--lora.alpha 32")  # fmt: skip
    if lora.rank and not 0 <= lora.dropout < 1:
        found.error("adapters", f"--lora.dropout {lora.dropout:g} must be a share below 1",
                    "--lora.dropout 0")  # fmt: skip


def _passes(config: Passes, rows: int, processes: int, found: Findings) -> None:
    seen = config.epochs * rows
    if seen < config.batch:
        # Part of an epoch is a first try.
        meant = config.epochs < 1 or LARGE * seen >= config.batch
        found.report(
            "batch",
            f"--batch {config.batch} is more than {rows} rows at --epochs {config.epochs:g}: the "
            "whole run would be one step",
            f"--batch {max(1, rows // 4)}, or more --epochs",
            certain=not meant,
        )
    elif rows < config.batch:
        found.warning(
            "batch",
            f"--batch {config.batch} is more than the {rows} rows: every step is a whole pass",
            f"--batch {max(1, rows // 4)}",
        )
    if config.batch % processes:
        _odd(found, "--batch", config.batch, processes)
    beta = getattr(config, "beta", 0.1)
    if not 1e-3 <= beta <= 10 and not (isinstance(config, Dpo) and config.loss_type == "ipo"):
        found.warning("beta", f"--beta {beta:g} is far from what is usual", "--beta 0.1")
    if isinstance(config, RewardModel) and config.holdout:
        kept_out = round(config.holdout * rows)
        if not kept_out:
            found.warning(
                "held out",
                f"--holdout {config.holdout:g} of {rows} pairs is none: no accuracy is reported",
                "--holdout 0.2",
            )
        elif rows - kept_out < min(config.batch, rows):
            found.warning(
                "held out",
                f"--holdout {config.holdout:g} leaves {rows - kept_out} of {rows} pairs to train "
                f"on, less than a batch of {config.batch}",
                "--holdout 0.1",
            )


def _rollouts(config: Rollouts | Distill, rows: int, processes: int, found: Findings) -> None:
    if rows < config.prompts:
        alone = not config.steps and LARGE * rows < config.prompts
        found.report(
            "prompts",
            f"--prompts {config.prompts} is more than the {rows} rows: a step asks the same "
            "prompt several times"
            + ("" if config.steps else ", and at --steps 0 the whole run would be one step"),
            f"--prompts {rows}",
            certain=alone,
        )
    if config.prompts < processes:
        found.warning(
            "processes",
            f"{processes} processes share --prompts {config.prompts}: some have nothing to do",
            f"--prompts {processes}",
        )
    elif config.prompts % processes:
        _odd(found, "--prompts", config.prompts, processes)
    if not isinstance(config, Rollouts):
        return
    temperature = config.sampling.temperature
    if temperature < 0.1 or temperature > 2:
        why = "a group's samples will be all the same" if temperature < 0.1 else "samples are noise"
        found.report(
            "temperature",
            f"--sampling.temperature {temperature:g}: {why}",
            "--sampling.temperature 1.0",
            certain=temperature > NOISE,
        )
    if isinstance(config, Ppo) and config.gamma**config.sampling.max_tokens < FAR:
        found.warning(
            "discount",
            f"--gamma {config.gamma:g}: of a reward at the end of {config.sampling.max_tokens} "
            "tokens next to nothing reaches the first",
            "--gamma 1",
        )
    share = config.prompts // processes
    if config.prompts < config.minibatches:
        found.error(
            "minibatches",
            f"--minibatches {config.minibatches} of --prompts {config.prompts}: some optimizer "
            "steps would have no prompt to learn from",
            f"--minibatches {config.prompts}",
        )
    elif 0 < share < config.minibatches:
        found.warning(
            "minibatches",
            f"--minibatches {config.minibatches} of {share} prompts a process: some optimizer "
            "steps have nothing to learn from",
            f"--minibatches {share}",
        )
    if config.eps_high < 0:
        found.error("clipping", f"--eps-high {config.eps_high:g} must be at least 0",
                    "--eps-high 0.28")  # fmt: skip
    elif config.eps_high == config.eps_low == 0 and config.minibatches * config.iterations > 1:
        found.warning(
            "clipping", "--eps-low 0 and --eps-high 0: only the first optimizer step of a rollout "
            "moves anything", "--eps-low 0.2 --eps-high 0.28",
        )  # fmt: skip
    elif config.eps_high > 1:
        found.warning("clipping", f"--eps-high {config.eps_high:g} clips nothing: a ratio may grow "
                      "that much above 1", "--eps-high 0.28")  # fmt: skip
    if not 0 <= config.entropy < 1:
        why = "explores less" if config.entropy < 0 else "outweighs every reward"
        found.warning("entropy", f"--entropy {config.entropy:g} {why}", "--entropy 0.001")
    beta = getattr(config, "beta", 0.0)
    if beta > 1:
        found.warning("beta", f"--beta {beta:g} holds the policy where it is", "--beta 0.05")


def _odd(found: Findings, flag: str, value: int, processes: int) -> None:
    found.warning(
        "processes",
        f"{flag} {value} does not divide among {processes} processes: some wait for others",
        f"{flag} {-(-value // processes) * processes}",
    )
