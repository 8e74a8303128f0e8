"""A distillation around tiny models: the real stage, completions made beforehand, and the loss as
the paper has it, sequence by sequence from plain models' logits.
"""

from dataclasses import replace

import tiny
import torch
import trl_peer
from datasets import Dataset
from transformers import AutoModelForCausalLM, AutoTokenizer

import data
from align.config import Compute, Distill, Sampling
from align.modeling.policy import Policy
from align.modeling.student import Student
from align.models import load_causal_lm
from align.rollout import Sample
from align.stages.distill import DistillStage

SAMPLES = 4


def folders(root):
    """A teacher, and a student that is the teacher with noise on every weight."""
    teacher = trl_peer.save_tiny_model(root / "teacher")
    student = root / "student"
    model = AutoModelForCausalLM.from_pretrained(teacher)
    trl_peer.move(model, seed=3, by=0.5)
    model.save_pretrained(student)
    trl_peer.tiny_tokenizer().save_pretrained(student)
    return teacher, student


def words(ids):
    return " ".join(f"w{token}" for token in ids)


def rows(rollout):
    """A row a prompt; its own completion is the prompt's tokens backwards."""
    prompts = rollout.prompts[::SAMPLES]
    return Dataset.from_list(
        [{"prompt": words(ids), "completion": words(ids[::-1]), "solution": "4"} for ids in prompts]
    )


def prepared(rollout):
    """What the stand-in sampler answers."""
    ids, answers = rollout.completions, {}
    for first in range(0, len(ids), SAMPLES):
        answers[tuple(rollout.prompts[first])] = [
            Sample(ids=one, logprobs=[0.0] * len(one), truncated=one[-1] != trl_peer.EOS)
            for one in ids[first : first + SAMPLES]
        ]
    return tiny.PreparedEngine(answers)


def stage(teacher, student, rollout, *, engine=None, padded=False, token_budget=10_000, **config):
    """About to collect this rollout."""
    settings = {
        "model": str(student),
        "teacher": str(teacher),
        "data": data.Arithmetic(),
        "prompts": len(rollout.prompts) // SAMPLES,
        "samples": SAMPLES,
        "sampling": Sampling(max_prompt_tokens=64, max_tokens=tiny.LONGEST),
        "compute": Compute(precision="fp32", token_budget=token_budget),
    }
    made = Distill(**(settings | config))
    policy = Policy(load_causal_lm(str(student), device="cpu"), temperature=made.temperature)
    module = Student(policy, beta=made.beta)
    context = tiny.context(module, AutoTokenizer.from_pretrained(student), path=student)
    context = replace(context, padded=padded)
    sampler = engine(policy.model, made) if engine else prepared(rollout)
    return DistillStage(made, context, rows(rollout), sampler)


def naive(teacher, student, sequences, *, beta, temperature):
    """(loss, gradient by name, mean forward KL, reverse KL, entropy) of (prompt, completion) pairs:
    the mean over all completion tokens, each sequence alone.
    """
    teacher, student = (
        AutoModelForCausalLM.from_pretrained(one).eval() for one in (teacher, student)
    )
    total, figures, tokens = 0.0, torch.zeros(3), 0
    for prompt, completion in sequences:
        ids = torch.tensor([[*prompt, *completion]])
        part = slice(len(prompt) - 1, -1)
        with torch.no_grad():
            t = (teacher(input_ids=ids).logits[0, part] / temperature).softmax(-1)
        s = (student(input_ids=ids).logits[0, part] / temperature).softmax(-1)
        forward, reverse = (t * (t / s).log()).sum(-1), (s * (s / t).log()).sum(-1)
        m = beta * t + (1 - beta) * s
        mixed = beta * (t * (t / m).log()).sum(-1) + (1 - beta) * (s * (s / m).log()).sum(-1)
        total = total + {0.0: forward, 1.0: reverse}.get(beta, mixed).sum()
        entropy = -(s * s.log()).sum(-1)
        figures += torch.stack([each.detach().sum() for each in (forward, reverse, entropy)])
        tokens += len(completion)
    (total / tokens).backward()
    return float(total / tokens), trl_peer.gradient(student), (figures / tokens).tolist()
