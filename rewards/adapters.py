"""The rewards in other trainers' shapes. TRL needs none: a reward is a TRL function as it is.

verl, in a file named by `custom_reward_function.path`, with `.name=compute_score`:

    compute_score = rewards.adapters.to_verl(rewards.get("accuracy"))

OpenRLHF, in a file named by `--remote_rm_url`:

    reward_func = rewards.adapters.to_openrlhf(rewards.get("accuracy"), tensor=torch.tensor)

verifiers:

    rubric = vf.Rubric(funcs=[rewards.adapters.to_verifiers(rewards.get("accuracy"))])

And back: `rewards.from_trl(function)`.
"""

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

from rewards.core import Reward, check_scores


def to_verl(reward: Reward) -> Callable[..., float]:
    """verl's `compute_score(data_source, solution_str, ground_truth, extra_info=None) -> float`.

    ground_truth becomes the column `solution`, the entries of extra_info become columns. What does
    not apply scores 0.0.
    """

    def compute_score(
        data_source: str,
        solution_str: str,
        ground_truth: Any,
        extra_info: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> float:
        row = {**(extra_info or {}), "data_source": data_source, "solution": ground_truth}
        columns = {name: [value] for name, value in row.items()}
        return reward([solution_str], **columns)[0] or 0.0

    return compute_score


def to_openrlhf(
    reward: Reward, *, tensor: Callable[[list[float]], Any] = list
) -> Callable[..., dict[str, Any]]:
    """OpenRLHF's `reward_func(queries, prompts, labels, **kwargs) -> {"rewards", "scores",
    "extra_logs"}`.

    queries hold prompt and response; the prompt is cut off where a query begins with it. rewards:
    the values. scores: correctness where the reward judges it, else the value, clamped to 0 … 1
    (OpenRLHF filters groups by it). extra_logs: the parts. tensor: what makes a list OpenRLHF's
    own, `torch.tensor` there; this package does not import torch.
    """

    def reward_func(
        queries: Sequence[str], prompts: Sequence[str], labels: Sequence[Any], **kwargs: Any
    ) -> dict[str, Any]:
        completions = [_response(q, p) for q, p in zip(queries, prompts, strict=True)]
        scores = reward.score(completions, prompts=list(prompts), solution=list(labels))
        check_scores(scores, completions, reward=reward.name)
        values = [score.value or 0.0 for score in scores]
        judged = [score.value if score.correct is None else score.correct for score in scores]
        parts = {name: [s.parts.get(name) or 0.0 for s in scores] for name in _parts(scores)}
        return {
            "rewards": tensor(values),
            "scores": tensor([min(1.0, max(0.0, value or 0.0)) for value in judged]),
            "extra_logs": {name: tensor(part) for name, part in parts.items()},
        }

    return reward_func


def to_verifiers(reward: Reward) -> Callable[..., Coroutine[Any, Any, float]]:
    """A function for a verifiers `Rubric`: asynchronous, called with keywords such as completion,
    answer and info.

    answer becomes the column `solution`; the entries of info become columns. The scoring runs in a
    thread, so the event loop goes on.
    """

    async def reward_function(
        completion: Any,
        answer: Any = None,
        info: dict[str, Any] | None = None,
        prompt: Any = None,
        **kwargs: Any,
    ) -> float:
        columns = {name: [value] for name, value in (info or {}).items()}
        if answer is not None:
            columns["solution"] = [answer]
        columns["prompts"] = [prompt]
        values = await asyncio.to_thread(reward, [completion], **columns)
        return values[0] or 0.0

    reward_function.__name__ = reward.name
    return reward_function


def _response(query: str, prompt: Any) -> str:
    return query[len(prompt) :] if isinstance(prompt, str) and query.startswith(prompt) else query


def _parts(scores: Sequence[Any]) -> list[str]:
    return list(dict.fromkeys(name for score in scores for name in score.parts))
