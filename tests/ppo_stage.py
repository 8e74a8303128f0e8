"""A PPO stage around a tiny model with a prepared sampler, and what it must compute.

The stage is the real one, its module made as a run makes it (`trained_module`). `Expected` is the
oracle: float64, one completion at a time, loops over tokens, plain forwards of the models, no call
of the library's objectives.
"""

import copy
import math
from dataclasses import dataclass

import tiny
import torch
import trl_peer
from datasets import Dataset
from transformers import AutoModelForCausalLM, AutoTokenizer
from trl_peer import Rollout

import data
from align import order
from align.config import Compute, Ppo, Sampling
from align.stages.modules import trained_module
from align.stages.ppo import PpoStage

SAMPLES = 4
SUMS = ("entropy", "value_loss", "kl/old", "mismatch/logprob", "value_clip_fraction", "tokens")


def ppo_stage(
    folder, rollout, *, padded=False, token_budget=10_000, temperature=1.0, **config
) -> PpoStage:
    """The real stage on a fresh copy of the model in `folder`, about to collect this rollout."""
    rows, answers = tiny._by_prompt(rollout, SAMPLES)
    settings = {
        "model": str(folder),
        "data": data.Arithmetic(),
        "reward": tiny.recorded_reward,
        "steps": 1,
        "prompts": len(rows),
        "samples": SAMPLES,
        "minibatches": 1,
        "importance": "off",
        "value_clip": 0.1,
        "sampling": Sampling(
            temperature=temperature, max_prompt_tokens=64, max_tokens=tiny.LONGEST
        ),
        "compute": Compute(precision="fp32", token_budget=token_budget),
    }
    made = Ppo(**(settings | config))
    tokenizer = AutoTokenizer.from_pretrained(folder)
    torch.manual_seed(made.seed)  # as a run does; adapters are drawn
    module = trained_module(
        made,
        str(folder),
        tokenizer,
        device=torch.device("cpu"),
        critic_path=made.critic_model or None,
    )
    context = tiny.context(module, tokenizer, folder=folder, path=folder, padded=padded)
    return PpoStage(made, context, Dataset.from_list(rows), tiny.PreparedEngine(answers))


def collected(folder, rollout, **options):
    """A stage and its batch: policy and critic moved before the rollout and on after it."""
    stage = ppo_stage(folder, rollout, **options)
    move(stage, seed=1)
    batch = stage.collect(1)
    move(stage, seed=2)
    return stage, batch


def move(stage, *, seed, by=0.1):
    """A random step of everything that trains, the critic's head included."""
    trained = [p for p in stage.context.unwrapped.parameters() if p.requires_grad]
    trl_peer.move(torch.nn.ParameterList(trained), seed=seed, by=by)


def backward(stage, batch, minibatch=0) -> tiny.Step:
    """Loss, gradient of policy and critic, sums of the metrics, over one minibatch's packs."""
    return tiny.backward(stage, batch, minibatch, module=stage.context.unwrapped)


def visited(stage, rollout) -> list[int]:
    """The completions of the rollout in the order in which the stage goes through them."""
    prompts = len(rollout.prompts) // SAMPLES
    places = [order.at(place, prompts, stage.config.seed) for place in range(prompts)]
    return [prompt * SAMPLES + i for prompt in places for i in range(SAMPLES)]


def by_completion(stage, batch, rollout, name) -> list[list[float]]:
    """A column of the packs, put back to the rollout's completions."""
    found = {}
    for one in (one for packs in batch.minibatches for one in packs):
        lengths = one.lengths().tolist()
        values, targets = one.columns[name].split(lengths), one.target.split(lengths)
        for number, part, ids in zip(one.per_sequence("number"), values, targets, strict=True):
            completion = visited(stage, rollout)[int(number)]
            assert ids.tolist() == rollout.completions[completion]
            found[completion] = part.tolist()
    return [found[i] for i in range(len(rollout.completions))]


def flat(rows: list[list[float]]) -> list[float]:
    return [x for row in rows for x in row]


def close(ours: list[list[float]], theirs: list[list[float]]) -> float:
    """|ours - theirs| / |theirs|, all tokens as one vector."""
    ours, theirs = (torch.tensor(flat(x), dtype=torch.float64) for x in (ours, theirs))
    return float((ours - theirs).norm() / theirs.norm())


@dataclass(frozen=True, kw_only=True)
class Seen:
    """What models say of each completion's tokens: log-probs, entropies, values."""

    logprobs: list[list[float]]
    entropies: list[list[float]]
    values: list[list[float]]


@torch.no_grad()
def look(stage, rollout, *, reference=False) -> Seen:
    """Every sequence alone through float64 copies of the stage's models as they are now.

    reference: of the stage's reference model instead, which has no values.
    """
    actor_critic = stage.context.unwrapped
    scorer = copy.deepcopy(actor_critic.scorer)
    if stage.config.lora.rank:
        language = merged(stage, None if reference else "default")
        trunk = merged(stage, "critic").model
    else:
        own = stage.reference.model if reference else actor_critic.model
        language = copy.deepcopy(own).double()
        trunk = scorer.model.double().model if scorer else language.model
    head = scorer.model.score.weight if scorer else actor_critic.head.weight.double()
    seen = Seen(logprobs=[], entropies=[], values=[])
    for prompt, completion in zip(rollout.prompts, rollout.completions, strict=True):
        ids = torch.tensor([[*prompt, *completion]])
        span = slice(len(prompt) - 1, -1)
        logits = language(input_ids=ids).logits[0, span] / stage.config.sampling.temperature
        log_p = logits.log_softmax(-1)
        seen.logprobs.append(
            [float(row[token]) for row, token in zip(log_p, completion, strict=True)]
        )
        seen.entropies.append([-float((row.exp() * row).sum()) for row in log_p])
        states = trunk(input_ids=ids).last_hidden_state[0, span]
        seen.values.append([float(state @ head[0]) for state in states])
    return seen


@torch.no_grad()
def merged(stage, adapter):
    """The stage's input in float64, without adapters of its own, plus one adapter's B A by hand."""
    model = AutoModelForCausalLM.from_pretrained(stage.context.model_path).double()
    if adapter is None:
        return model
    state = dict(stage.context.model.named_parameters())
    scale = stage.config.lora.alpha / stage.config.lora.rank
    for name, weight in model.named_parameters():
        stem = name.removesuffix(".weight")
        if f"{stem}.lora_A.{adapter}.weight" in state:
            a, b = (state[f"{stem}.lora_{side}.{adapter}.weight"].double() for side in "AB")
            weight += scale * b @ a
    return model


@dataclass(kw_only=True)
class Expected:
    """Everything PPO makes of a rollout, for `config` and what the models say."""

    config: Ppo
    rollout: Rollout
    old: Seen
    reference: Seen
    beta: float

    def __post_init__(self):
        self.rewards = [self._rewards(i) for i in range(len(self.rollout.completions))]
        self.plain = [self._gae(i) for i in range(len(self.rewards))]
        self.returns = [
            [a + v for a, v in zip(advantages, values, strict=True)]
            for advantages, values in zip(self.plain, self.old.values, strict=True)
        ]
        self.advantages = self._whitened() if self.config.whiten else self.plain

    def _rewards(self, i):
        """-beta k1 a token, the score on the last one, less the price of having been cut."""
        found = []
        for old, reference in zip(self.old.logprobs[i], self.reference.logprobs[i], strict=True):
            found.append(-self.beta * (old - reference) if self.config.kl == "reward" else 0.0)
        found[-1] += self.rollout.rewards[i]
        if self.rollout.completions[i][-1] != trl_peer.EOS:
            found[-1] -= self.config.truncated_penalty
        return found

    def _gae(self, i):
        rewards, values = self.rewards[i], self.old.values[i]
        advantages, running = [0.0] * len(rewards), 0.0
        for t in reversed(range(len(rewards))):
            following = values[t + 1] if t + 1 < len(values) else 0.0
            delta = rewards[t] + self.config.gamma * following - values[t]
            running = delta + self.config.gamma * self.config.lam * running
            advantages[t] = running
        return advantages

    def _whitened(self):
        tokens = flat(self.plain)
        mean = sum(tokens) / len(tokens)
        deviation = math.sqrt(sum((x - mean) ** 2 for x in tokens) / (len(tokens) - 1))
        return [[(x - mean) / (deviation + 1e-8) for x in row] for row in self.plain]

    def figures(self):
        """Of the rollout, before any update."""
        k1 = [
            old - reference
            for mine, theirs in zip(self.old.logprobs, self.reference.logprobs, strict=True)
            for old, reference in zip(mine, theirs, strict=True)
        ]
        returns, values = flat(self.returns), flat(self.old.values)
        mean = sum(returns) / len(returns)
        gaps = [r - v for r, v in zip(returns, values, strict=True)]
        bias = sum(gaps) / len(gaps)
        left = sum((gap - bias) ** 2 for gap in gaps)
        return {
            "kl": sum(k1) / len(k1),
            "kl/sequence": sum(k1) / len(self.rewards),
            "beta": self.beta,
            "value": sum(values) / len(values),
            "return": mean,
            "explained_variance": 1 - left / sum((r - mean) ** 2 for r in returns),
        }

    def step(self, now: Seen) -> tuple[float, dict[str, float]]:
        """Loss of the one minibatch, and the metrics' sums over its tokens."""
        config, total = self.config, 0.0
        sums = dict.fromkeys(SUMS, 0.0)
        if config.objective == "clip":
            sums["clip_fraction"] = 0.0
        for i, completion in enumerate(self.rollout.completions):
            for t in range(len(completion)):
                old, new = self.old.logprobs[i][t], now.logprobs[i][t]
                advantage = self.advantages[i][t] * self._correction(i, t)
                loss, clipped = self._surrogate(new - old, advantage)
                if config.kl == "loss":
                    gap = self.reference.logprobs[i][t] - new
                    loss += self.beta * (math.exp(gap) - 1 - gap)
                loss -= config.entropy * now.entropies[i][t]
                value, held = self._value_loss(i, t, now.values[i][t])
                total += self._weight(i) * (loss + config.value_weight * value)
                sums["entropy"] += now.entropies[i][t]
                sums["value_loss"] += value
                sums["kl/old"] += math.exp(new - old) - 1 - (new - old)
                sums["mismatch/logprob"] += abs(old - self.rollout.sampler[i][t])
                sums["value_clip_fraction"] += held
                sums["tokens"] += 1
                if config.objective == "clip":
                    sums["clip_fraction"] += clipped
        return total, sums

    def _surrogate(self, log_ratio, advantage):
        ratio, config = math.exp(log_ratio), self.config
        if config.objective == "penalty":
            kl = ratio - 1 - log_ratio
            return -ratio * advantage + config.penalty * kl, False
        held = min(max(ratio, 1 - config.eps_low), 1 + config.eps_high)
        clipped = held * advantage < ratio * advantage
        return -min(ratio * advantage, held * advantage), clipped

    def _value_loss(self, i, t, value):
        old, target, clip = self.old.values[i][t], self.returns[i][t], self.config.value_clip
        loss = (value - target) ** 2 / 2
        if not clip:
            return loss, False
        held = min(max(value, old - clip), old + clip)
        return max(loss, (held - target) ** 2 / 2), held != value

    def _correction(self, i, t):
        gaps = [a - b for a, b in zip(self.old.logprobs[i], self.rollout.sampler[i], strict=True)]
        match self.config.importance:
            case "token":
                return min(math.exp(gaps[t]), self.config.importance_cap)
            case "sequence":
                return min(math.exp(sum(gaps)), self.config.importance_cap)
        return 1.0

    def _weight(self, i):
        lengths = [len(ids) for ids in self.rollout.completions]
        match self.config.reduction:
            case "grpo":
                return 1 / (lengths[i] * len(lengths))
            case "dr_grpo":
                return 1 / (self.config.sampling.max_tokens * len(lengths))
        return 1 / sum(lengths)
