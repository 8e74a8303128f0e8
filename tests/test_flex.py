"""FlexAttention's block mask: the dense mask's cells, in as few blocks as hold them."""

import random
from contextlib import contextmanager
from unittest.mock import patch

import pytest
import torch
from torch.nn.attention.flex_attention import create_block_mask, create_mask, flex_attention
from transformers import AutoModelForCausalLM, Qwen2Config

from align.modeling import flex
from align.modeling.policy import Policy
from align.packing import PAD, Completion, Group, pack
from align.training.halving import halves


def long_packs(seed, *, prompt=400, completion=300, budget=4000):
    """Groups whose segments are shorter and longer than a block."""
    draw = random.Random(seed)
    groups = [
        Group(
            prompt=[5] * draw.randint(1, prompt),
            completions=[Completion(ids=[6] * draw.randint(1, completion))] * draw.randint(1, 5),
        )
        for _ in range(6)
    ]
    return pack(groups, token_budget=budget)


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("short", [False, True])
def test_the_block_mask_is_the_dense_mask(seed, short):
    """Cell by cell by its rule; block by block it is what PyTorch makes of the whole mask."""
    sizes = {"prompt": 12, "completion": 20} if short else {}
    for one in [*long_packs(seed, **sizes), *halves(long_packs(seed, **sizes)[0])]:
        _, _, segment, prompt = flex.filled(one)
        mask = flex.block_mask(segment, prompt)
        width, before = segment.shape[1], one.segment.shape[1]
        dense = create_mask(mask.mask_mod, 1, 1, width, width, device="cpu")
        assert torch.equal(dense[:, :, :before, :before], one.attention_mask())
        assert dense.any(-1).all()
        peer = create_block_mask(mask.mask_mod, 1, None, width, width, device="cpu")
        assert torch.equal(mask.to_dense(), peer.to_dense())
        for name in ("kv", "q"):
            full, theirs = (_marked(m, f"full_{name}", width) for m in (mask, peer))
            assert not (full & ~theirs).any()
            partly, theirs_partly = (_marked(m, name, width) for m in (mask, peer))
            assert torch.equal(full | partly, theirs | theirs_partly)
            assert not (full & partly).any()
        assert mask.seq_lengths == (width, width)


def _marked(mask, name, width):
    """BoolTensor[N, N] of the blocks listed under a name."""
    counts, places = getattr(mask, f"{name}_num_blocks"), getattr(mask, f"{name}_indices")
    found = torch.zeros(width // flex.BLOCK, width // flex.BLOCK, dtype=torch.bool)
    for row, (count, listed) in enumerate(zip(counts[0, 0], places[0, 0], strict=True)):
        found[row, listed[:count].long()] = True
    return found


def test_long_prompts_and_completions_have_whole_blocks():
    """Those whose cells the kernel need not ask about: 600 cells of prompt, 600 of completion."""
    (one,) = pack(
        [Group(prompt=[5] * 600, completions=[Completion(ids=[6] * 600)] * 2)], token_budget=2000
    )
    mask = flex.block_mask(*flex.filled(one)[2:])
    # Queries 640 to 1152 in four blocks see the prompt's four whole ones each, and so on.
    assert int(mask.full_kv_num_blocks.sum()) > 30


def test_packs_are_filled_to_whole_blocks():
    (one,) = pack([Group(prompt=[5], completions=[Completion(ids=[6])])], token_budget=10)
    ids, positions, segment, prompt = flex.filled(one)
    assert ids.shape == positions.shape == segment.shape == prompt.shape == (1, flex.BLOCK)
    assert segment[0, 2:].tolist() == prompt[0, 2:].tolist() == [PAD] * (flex.BLOCK - 2)


@pytest.mark.parametrize("autocast", [None, torch.bfloat16])
def test_a_model_with_it_gives_what_sdpa_gives(autocast):
    """Uncompiled, on the CPU; query, key and value reach the kernel in one type."""
    made = {name: _qwen(name) for name in (flex.NAME, "sdpa")}
    made[flex.NAME].load_state_dict(made["sdpa"].state_dict())
    (one,) = pack(
        [Group(prompt=list(range(3, 40)), completions=[Completion(ids=list(range(9, 60)))] * 2),
         Group(prompt=[7], completions=[Completion(ids=[8, 9])])], token_budget=1000,
    )  # fmt: skip
    with torch.no_grad(), _uncompiled() as kinds:
        found = {name: Policy(model, autocast=autocast)(one)[0] for name, model in made.items()}
    assert kinds == {(autocast or torch.float32,) * 3}
    gap = (found[flex.NAME] - found["sdpa"]).abs().max()
    assert gap < (1e-5 if autocast is None else 0.1)


def _qwen(attention):
    torch.manual_seed(0)
    config = Qwen2Config(
        vocab_size=64, hidden_size=64, intermediate_size=128, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=512,
        initializer_range=0.1,
    )  # fmt: skip
    return AutoModelForCausalLM.from_config(
        config, dtype=torch.float32, attn_implementation=attention
    ).eval()


@contextmanager
def _uncompiled():
    """Transformers' kernel without its compiler; the types that it is called with."""
    kinds = set()

    def plain(query, key, value, training=False, **kwargs):
        kinds.add((query.dtype, key.dtype, value.dtype))
        return flex_attention(query, key, value, **kwargs)

    where = "transformers.integrations.flex_attention.compile_friendly_flex_attention"
    with patch(where, plain):
        yield kinds
