"""Policies on tiny models of several architectures: packs, adapters, saving."""

import dataclasses

import pytest
import tiny
import torch
from transformers import (
    AutoModelForCausalLM,
    CohereConfig,
    Gemma2Config,
    Gemma3TextConfig,
    GPT2Config,
    GraniteConfig,
    LlamaConfig,
    MambaConfig,
    MistralConfig,
    OPTConfig,
    Qwen2Config,
    Qwen3Config,
)

from align.config import Lora
from align.modeling.lora import adapters_off, add_lora, merged_weights
from align.modeling.policy import Policy
from align.models import ModelError, load_causal_lm, load_tokenizer, save
from align.packing import Completion, Group, pack
from align.probe import why_not_packed

GEMMA = {"head_dim": 8, "query_pre_attn_scalar": 8, "sliding_window": 64}
PACKED = {
    "llama": (LlamaConfig, {}),
    "qwen2": (Qwen2Config, {}),
    "qwen2, a window that no layer has": (
        Qwen2Config,
        {"use_sliding_window": True, "sliding_window": 4, "max_window_layers": 2},
    ),
    "qwen3": (Qwen3Config, {"head_dim": 8}),
    "gemma2": (Gemma2Config, GEMMA | {"final_logit_softcapping": 2.0}),
    "gemma3": (Gemma3TextConfig, GEMMA),
    "mistral": (MistralConfig, {"sliding_window": None}),
    "granite": (GraniteConfig, {"logits_scaling": 2.0}),
    "cohere": (CohereConfig, {"logit_scale": 0.5}),
    "gpt2": (GPT2Config, {"n_positions": 64}),
    "opt": (OPTConfig, {"word_embed_proj_dim": 32, "ffn_dim": 64, "init_std": 0.2}),
}
NOT_PACKED = {
    "short window": (MistralConfig, {"sliding_window": 4}, 24, "looks back 4 tokens"),
    "long window": (MistralConfig, {"sliding_window": 40}, 41, "looks back 40 tokens"),
    "some layers": (Gemma3TextConfig, GEMMA, 65, "looks back 64 tokens"),
    "recurrent": (MambaConfig, {"state_size": 4}, 24, "does not take the mask"),
}
PROMPT = [5, 9, 11, 30]
COMPLETIONS = [[7, 8, 20, 1], [40, 1], [3, 3, 21, 17, 33, 1]]
LORA = Lora(rank=4, alpha=8)


def group(prompt=PROMPT, completions=COMPLETIONS):
    return Group(prompt=prompt, completions=[Completion(ids=ids) for ids in completions])


def plain(model, one, temperature=1.0):
    """{(prompt, completion): its log-probs}, each sequence alone through the plain model."""
    return torch.cat(
        [tiny.plain_logprobs(model, one.prompt, c.ids, temperature) for c in one.completions]
    )


def nudged(model):
    """Adapters that do something: B starts at 0, so a fresh adapter changes nothing."""
    torch.manual_seed(1)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            parameter.data.normal_(std=0.3)
    return model


@pytest.mark.parametrize("name", PACKED)
def test_packed_log_probs_are_the_plain_models(name):
    """Also the logits' scale and soft cap of the architecture, at a temperature."""
    config, changes = PACKED[name]
    model = tiny.model(config, **changes)
    policy = Policy(model, temperature=0.7).eval()  # GPT-2 and OPT have dropout
    assert why_not_packed(policy, longest=24) is None
    with torch.no_grad():
        got, entropy = policy(pack([group()], token_budget=100)[0])
        torch.testing.assert_close(got, plain(model, group(), 0.7), rtol=1e-5, atol=1e-5)
    assert entropy.shape == got.shape
    assert (entropy > 0).all()


@pytest.mark.parametrize("name", NOT_PACKED)
def test_a_model_that_takes_no_packs_is_told_and_trains_padded(name):
    """The padded layout gives the plain model's log-probs, and its gradient reaches every weight
    that the plain model's reaches, equal to it.
    """
    config, changes, longest, reason = NOT_PACKED[name]
    model = tiny.model(config, **changes)
    policy = Policy(model)
    assert reason in why_not_packed(policy, longest=longest)
    long = [(7 * i) % 40 + 3 for i in range(longest - 6)]
    one = group(prompt=long, completions=COMPLETIONS[::-1])  # rows come longest first
    one.completions[1:] = one.completions[2:0:-1]
    expected = plain(model, one)
    expected.sum().backward()
    gradient = {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}
    model.zero_grad()
    (rows,) = pack([one], token_budget=1000, padded=True)
    got, _ = policy(rows)
    torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-5)
    got.sum().backward()
    ours = torch.cat([p.grad.flatten() for n, p in model.named_parameters() if n in gradient])
    theirs = torch.cat([g.flatten() for g in gradient.values()])
    assert (ours - theirs).norm() < 1e-5 * theirs.norm()


def test_packs_beyond_the_window_would_be_wrong():
    """Why the window is read from the configuration: the mask of a pack switches it off."""
    model = tiny.model(MistralConfig, sliding_window=40)
    one = group(prompt=[(7 * i) % 40 + 3 for i in range(50)], completions=[[5, 6, 1]])
    with torch.no_grad():
        packed, _ = Policy(model)(pack([one], token_budget=100)[0])
        assert (packed - plain(model, one)).abs().max() > 0.1
    assert why_not_packed(Policy(model), longest=40) is None


def test_the_trial_leaves_the_policy_as_it_was():
    policy = Policy(tiny.model(), autocast=torch.bfloat16).train()
    assert why_not_packed(policy, longest=100) is None
    assert policy.training
    assert policy.autocast is torch.bfloat16
    assert all(p.grad is None for p in policy.parameters())


def test_autocast_computes_in_bf16_on_float32_weights():
    model = tiny.model()
    (one,) = pack([group()], token_budget=100)
    exact, _ = Policy(model)(one)
    rounded, _ = Policy(model, autocast=torch.bfloat16)(one)
    assert rounded.dtype == torch.float32
    gap = (exact - rounded).abs().max()
    assert 1e-4 < gap < 0.5
    rounded.sum().backward()
    assert {p.grad.dtype for p in model.parameters()} == {torch.float32}


# --- adapters ---------------------------------------------------------------------------------


@pytest.fixture(params=[True, False], ids=["tied", "untied"])
def adapted(request):
    """(a model with adapters that change its output, the same model without any)."""
    base = tiny.model(tie_word_embeddings=request.param)
    model = tiny.model(tie_word_embeddings=request.param)
    add_lora(model, LORA)
    return nudged(model).eval(), base


def test_only_adapters_train(adapted):
    model, _ = adapted
    Policy(model)(pack([group()], token_budget=100)[0])[0].sum().backward()
    trained = {name for name, p in model.named_parameters() if p.grad is not None}
    assert trained == {name for name, _ in model.named_parameters() if "lora_" in name}
    # Seven projections in each of two layers, A and B; the head and the embedding are left alone.
    assert len(trained) == 2 * 7 * 2


def test_target_names_choose_the_modules():
    model = tiny.model()
    add_lora(model, dataclasses.replace(LORA, target="q_proj,v_proj"))
    modules = {name.split(".")[-4] for name, p in model.named_parameters() if p.requires_grad}
    assert modules == {"q_proj", "v_proj"}


def test_adapters_off_is_the_base(adapted):
    model, base = adapted
    ids = torch.tensor([PROMPT])
    with torch.no_grad():
        with_adapters = model(ids).logits
        with adapters_off(model):
            assert torch.equal(model(ids).logits, base(ids).logits)
        assert torch.equal(model(ids).logits, with_adapters)
        assert (with_adapters - base(ids).logits).abs().max() > 0.1


def test_adapters_come_back_after_an_error(adapted):
    model, _ = adapted
    ids = torch.tensor([PROMPT])
    with torch.no_grad():
        expected = model(ids).logits
        with pytest.raises(KeyError), adapters_off(model):
            raise KeyError
        assert torch.equal(model(ids).logits, expected)


def test_merged_weights_have_the_names_and_shapes_of_the_base(adapted):
    model, base = adapted
    merged = {name: tensor.shape for name, tensor in merged_weights(model)}
    expected = {n: p.shape for n, p in base.named_parameters(remove_duplicate=False)}
    assert merged == expected
    assert "lm_head.weight" in merged


def test_merged_weights_compute_what_the_adapters_do(adapted):
    model, base = adapted
    base.load_state_dict(dict(merged_weights(model)))
    ids = torch.tensor([PROMPT])
    with torch.no_grad():
        torch.testing.assert_close(base(ids).logits, model(ids).logits, rtol=1e-5, atol=1e-5)


def test_merging_leaves_the_weights_bit_equal(adapted):
    model, _ = adapted
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    assert not any(tensor.requires_grad for _, tensor in merged_weights(model))
    assert all(torch.equal(before[name], p) for name, p in model.named_parameters())


@pytest.mark.parametrize("lora", [False, True])
@pytest.mark.parametrize("tied", [False, True])
def test_saved_folder_loads_to_the_same_logits(tied, lora, tmp_path):
    """By transformers itself, with nothing missing or left over; by our loader too."""
    model = tiny.model(tie_word_embeddings=tied)
    if lora:
        add_lora(model, LORA)
        nudged(model).eval()
    save(model, tiny.chat_tokenizer(), tmp_path)
    loaded, report = AutoModelForCausalLM.from_pretrained(
        tmp_path, dtype=torch.float32, output_loading_info=True
    )
    assert not any(report.values()), report
    ids = torch.tensor([PROMPT])
    with torch.no_grad():
        expected = model(ids).logits
        for each in (loaded.eval(), load_causal_lm(str(tmp_path), device="cpu").eval()):
            torch.testing.assert_close(each(ids).logits, expected, rtol=1e-5, atol=1e-5)
    assert loaded.config.tie_word_embeddings == tied
    assert load_tokenizer(str(tmp_path)).decode([2]) == "<|im_end|>"


def test_buffers_are_saved(tmp_path):
    """Weights that do not train, such as the routing bias of some mixtures of experts."""
    from safetensors.torch import load_file

    model = tiny.model()
    add_lora(model, LORA)
    model.model.register_buffer("routing_bias", torch.tensor([1.0, 2.0]))
    save(model, tiny.chat_tokenizer(), tmp_path)
    state = load_file(tmp_path / "model.safetensors")
    assert state["model.routing_bias"].tolist() == [1.0, 2.0]
    assert not [name for name in state if "lora" in name or "base_layer" in name]


def test_a_tokenizer_without_an_end_token_is_refused(tmp_path):
    tokenizer = tiny.chat_tokenizer()
    tokenizer.eos_token = None
    tokenizer.save_pretrained(tmp_path)
    tiny.model().config.save_pretrained(tmp_path)
    with pytest.raises(ModelError, match="no end token"):
        load_tokenizer(str(tmp_path))
