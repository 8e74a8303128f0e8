"""Whether a model can take packs, found out by trying."""

from __future__ import annotations

import torch
from torch import Tensor
from transformers import PreTrainedModel

from align.models import ModelError
from align.packing import Completion, Group, pack
from align.policy import Policy

TOLERANCE = 2e-3  # nats in float32; a wrong mask is off by tenths


@torch.no_grad()
def why_not_packed(policy: Policy, *, longest: int) -> str | None:
    """None if this model gives packed sequences the log-probs of separate ones, else the reason.

    longest: tokens of the longest sequence to come. Tried out rather than looked up: recurrent
    layers, learned absolute positions and whatever comes next all show in the figures. Only a
    window wider than the trial does not: a mask of one's own switches it off, so it is read.
    """
    window = _window(policy.model)
    if window is not None and window < longest:
        return f"it looks back {window} tokens only, and sequences may have {longest}"
    reason = _packing_gap(policy)
    if reason is not None and policy.plans:
        policy.plans = False  # its attention may still take the dense mask
        reason = _packing_gap(policy)
    return reason


def _packing_gap(policy: Policy) -> str | None:
    """Why packed log-probs are not those of separate sequences; None if they are."""
    ids = [(7 * i + 3) % (policy.model.config.get_text_config().vocab_size - 1) for i in range(24)]
    group = Group(
        prompt=ids[:9], completions=[Completion(ids=ids[9:14]), Completion(ids=ids[14:24])]
    )
    device = next(policy.parameters()).device
    was_training, autocast = policy.training, policy.autocast
    policy.eval()
    policy.autocast = None
    try:
        packed = policy(pack([group], token_budget=64)[0].to(device))[0]
        rows = pack([group], token_budget=1, padded=True)  # longest first, one row each
        separate = torch.cat([policy(row.to(device))[0] for row in rows][::-1])
        own = torch.cat([_own_logprobs(policy, group, i) for i in range(2)])
    except (ValueError, RuntimeError, TypeError, NotImplementedError) as error:
        return f"its attention does not take the mask ({type(error).__name__}: {error})"
    finally:
        policy.train(was_training)
        policy.autocast = autocast
    if (gap := (separate - own).abs().max().item()) > TOLERANCE:
        raise ModelError(
            f"{type(policy.model).__name__} makes its logits in a way of its own: log-probs taken "
            f"from its hidden states are off by {gap:.3g} nats, so it cannot be trained here"
        )
    gap = (packed - own).abs().max().item()
    return None if gap < TOLERANCE else f"packed log-probs differ by {gap:.3g} nats"


def _own_logprobs(policy: Policy, group: Group, index: int) -> Tensor:
    """Log-probs of one completion from the model's own logits."""
    target = torch.tensor(group.completions[index].ids, device=policy.model.device)
    prompt = torch.tensor(group.prompt, device=policy.model.device)
    logits = policy.model(torch.cat([prompt, target])[None]).logits[0, len(prompt) - 1 : -1]
    log_p = (logits.float() / policy.temperature).log_softmax(-1)
    return log_p.gather(-1, target[:, None])[:, 0]


def _window(model: PreTrainedModel) -> int | None:
    """Tokens that a layer looks back at most, where some layer does not see all."""
    config = model.config.get_text_config()
    names = {"sliding_attention": "sliding_window", "chunked_attention": "attention_chunk_size"}
    kinds = set(getattr(config, "layer_types", None) or names)
    windows = [getattr(config, names[kind], None) for kind in kinds & names.keys()]
    return min((window for window in windows if window), default=None)
