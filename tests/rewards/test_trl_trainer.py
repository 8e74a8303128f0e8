"""Every reward drops into TRL's GRPOTrainer as it is: a real run of two steps on a tiny random
model.
"""

from pathlib import Path

import pytest

import rewards
from rewards import Accuracy, Format, WeightedSum

torch = pytest.importorskip("torch")
trl = pytest.importorskip("trl")

TEMPLATE = (
    "{% for message in messages %}"
    "{{ message['role'] + ' ' + message['content'] + ' <end> ' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ 'assistant ' }}{% endif %}"
)


WORDS = "system user assistant What is plus ? think answer 1 2 3 4 5 6 7 8 9 First , Next"


def tiny_tokenizer() -> object:
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    vocabulary = {word: i for i, word in enumerate(["<pad>", "<end>", "<unk>", *WORDS.split()])}
    words = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=words, pad_token="<pad>", eos_token="<end>", unk_token="<unk>"
    )
    tokenizer.chat_template = TEMPLATE
    return tokenizer


def tiny_model(tokenizer: object) -> object:
    from transformers import Qwen2Config, Qwen2ForCausalLM

    torch.manual_seed(0)
    config = Qwen2Config(
        vocab_size=len(tokenizer),
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=2,
        max_position_embeddings=128,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=None,
    )
    return Qwen2ForCausalLM(config)


def test_two_steps_of_grpo_with_every_reward(tmp_path: Path) -> None:
    from datasets import Dataset

    rows = [
        {"prompt": [{"role": "user", "content": f"What is {a} plus 2 ?"}], "solution": str(a + 2)}
        for a in range(1, 8)
    ]
    tokenizer = tiny_tokenizer()
    model = tiny_model(tokenizer)
    functions = [
        rewards.get(name, **({"max_len": 8, "cache": 4} if name == "soft_overlong" else {}))
        for name in rewards.names()
    ]
    functions.append(WeightedSum(((1.0, Accuracy()), (0.1, Format()))))
    before = model.lm_head.weight.detach().clone()
    trainer = trl.GRPOTrainer(
        model=model,
        reward_funcs=functions,
        args=trl.GRPOConfig(
            output_dir=str(tmp_path),
            max_steps=2,
            per_device_train_batch_size=4,
            num_generations=4,
            max_completion_length=8,
            learning_rate=1e-2,
            logging_steps=1,
            save_strategy="no",
            report_to=[],
            use_cpu=True,
            bf16=False,
            seed=0,
        ),
        train_dataset=Dataset.from_list(rows),
        processing_class=tokenizer,
    )
    trainer.train()
    assert trainer.state.global_step == 2
    steps = [row for row in trainer.state.log_history if "reward" in row]
    assert len(steps) == 2
    for step in steps:
        means = {name: step[f"rewards/{name}/mean"] for name in [*rewards.names(), "weighted_sum"]}
        assert all(value == value for value in means.values()), means  # no reward was NaN
        assert step["reward"] == pytest.approx(sum(means.values()), abs=1e-5)
        assert means["cosine"] < 0 and means["soft_overlong"] <= 0
    assert not torch.equal(before, model.lm_head.weight)
