"""Whether a model can take packs, found out by trying."""

from __future__ import annotations

import torch
from torch import Tensor
from transformers import PreTrainedModel

from align.modeling.policy import Policy
from align.modeling.scorer import Scorer
from align.models import ModelError
from align.packing import Completion, Group, Pack, pack

TOLERANCE = 2e-3  # in float32; a wrong mask is off by tenths


@torch.no_grad()
def why_not_packed(module: Policy | Scorer, *, longest: int) -> str | None:
    """None if this model gives packed sequences the numbers of separate ones, else the reason.

    longest: tokens of the longest sequence to come. Tried out rather than looked up: recurrent
    layers, learned absolute positions and whatever comes next all show in the figures. Only a
    window wider than the trial does not: a mask of one's own switches it off, so it is read.
    """
    window = _window(module.model)
    if window is not None and window < longest:
        return f"it looks back {window} tokens only, and sequences may have {longest}"
    reason = _packing_gap(module)
    if reason is not None and module.plans:
        module.plans = False  # its attention may still take the dense mask
        reason = _packing_gap(module)
    return reason


def _packing_gap(module: Policy | Scorer) -> str | None:
    """Why packed numbers are not those of separate sequences; None if they are."""
    text = module.model.config.get_text_config()
    known = [i for i in range(text.vocab_size) if i != text.pad_token_id]
    ids = [known[(7 * i + 3) % (len(known) - 1)] for i in range(24)]
    group = Group(
        prompt=ids[:9], completions=[Completion(ids=ids[9:14]), Completion(ids=ids[14:24])]
    )
    device = next(module.parameters()).device
    was_training, autocast = module.training, module.autocast
    module.eval()
    module.autocast = None
    try:
        packed = _numbers(module, pack([group], token_budget=64)[0].to(device))
        rows = pack([group], token_budget=1, padded=True)  # longest first, one row each
        separate = torch.cat([_numbers(module, row.to(device)) for row in rows][::-1])
        own = torch.cat([_own(module, group, i) for i in range(2)])
    except (ValueError, RuntimeError, TypeError, NotImplementedError) as error:
        return f"its attention does not take the mask ({type(error).__name__}: {error})"
    finally:
        module.train(was_training)
        module.autocast = autocast
    if (gap := (separate - own).abs().max().item()) > TOLERANCE:
        raise ModelError(
            f"{type(module.model).__name__} makes its logits in a way of its own: those taken "
            f"from its hidden states are off by {gap:.3g}, so it cannot be trained here"
        )
    gap = (packed - own).abs().max().item()
    return None if gap < TOLERANCE else f"packed sequences' outputs differ by {gap:.3g}"


def _numbers(module: Policy | Scorer, one: Pack) -> Tensor:
    """What we take from the hidden states: log-probs of tokens, or scores of sequences."""
    return module(one) if isinstance(module, Scorer) else module(one)[0]


def _own(module: Policy | Scorer, group: Group, index: int) -> Tensor:
    """The same from the model's own logits, of one completion."""
    target = torch.tensor(group.completions[index].ids, device=module.model.device)
    prompt = torch.tensor(group.prompt, device=module.model.device)
    logits = module.model(torch.cat([prompt, target])[None]).logits[0]
    if isinstance(module, Scorer):
        return logits
    log_p = (logits[len(prompt) - 1 : -1].float() / module.temperature).log_softmax(-1)
    return log_p.gather(-1, target[:, None])[:, 0]


def _window(model: PreTrainedModel) -> int | None:
    """Tokens that a layer looks back at most, where some layer does not see all."""
    config = model.config.get_text_config()
    names = {"sliding_attention": "sliding_window", "chunked_attention": "attention_chunk_size"}
    kinds = set(getattr(config, "layer_types", None) or names)
    windows = [getattr(config, names[kind], None) for kind in kinds & names.keys()]
    return min((window for window in windows if window), default=None)
