"""Reward models that share the policy's base, and those that must not read the policy's texts."""

from __future__ import annotations

from transformers import PreTrainedTokenizerBase

from align import adapters, models
from align.config import Ppo, Rollouts, Sample
from align.files.folder import identity
from align.model_reward import attach
from align.modeling.policy import Policy
from align.modeling.scorer import AdapterScorer
from align.references import loading
from align.text_scorer import TextScorer
from align.vocabulary import check_same_tokenizer


def check_reward_models(config: Rollouts | Sample, tokenizer: PreTrainedTokenizerBase) -> None:
    """Raises ModelError for one that is none, or that has another tokenizer without saying so."""
    for reward in loading(config.reward):
        models.check_classifier(reward.model)
        if not reward.own_tokenizer:
            check_same_tokenizer(tokenizer, path=reward.model)


def share_base(
    config: Ppo, policy: Policy, path: str, tokenizer: PreTrainedTokenizerBase, *, padded: bool
) -> None:
    """Put the reward models' adapters on the policy's base, so that memory holds it once.

    path: the policy's input. padded: its packs are. Raises ModelError for a reward model without
    adapters, or with adapters of another base: added to this one they would score something else.
    """
    below = adapters.beneath(config.lora, path)
    on = {name: below.folder / name for name in below.names}
    for reward in {reward.model: reward for reward in loading(config.reward)}.values():
        found = adapters.found(reward.model)
        if found is None or identity(found.base) != identity(below.base):
            raise models.ModelError(
                f"--critic adapters: the reward model {reward.model} is not adapters on "
                f"{below.base}, as the policy's are; train it from the same input with --lora.rank "
                "and the same --lora.base, or give the critic a model of its own with --critic "
                "separate"
            )
        head = None
        for name in found.names:
            if name not in on:
                head = adapters.put_on(policy.model, found, name=name, active=False)
                on[name] = found.folder / name
            elif not adapters.same(on[name], found.folder / name):
                raise models.ModelError(
                    f"two different adapters are called {name}: {on[name]} and "
                    f"{found.folder / name}; give the stages different names"
                )
        if head is None:
            raise models.ModelError(f"the adapters beside {reward.model} have no score head")
        pad = models.load_config(reward.model).get_text_config().pad_token_id
        attach(
            reward.model,
            TextScorer(
                AdapterScorer(policy, found.names, head),
                tokenizer,
                pad=pad,
                token_budget=reward.token_budget,
                padded=padded,
            ),
        )
