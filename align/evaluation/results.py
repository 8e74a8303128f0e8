"""From scored answers to a result: shares with intervals, pass@k, maj@k, and the files they go to.

An answer is a row of the .jsonl: `row` is its problem, `sample` its number there, `strict`,
`lenient` and `format` are 0 or 1, and `outcome` says how the judging ended. Torch-free.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from align.evaluation.passk import ks, majority_at, pass_at
from align.evaluation.scoring import Verdict, votes
from align.evaluation.statistics import mean_share, proportion
from align.files.disk import whole
from align.files.folder import made, write_json
from align.terminal.progress import duration

SCORES = ("strict", "lenient", "format")
Answer = dict[str, Any]


def figures(answers: Sequence[Answer]) -> dict[str, Any]:
    """n (problems), samples and samples_most (answers to each, the fewest and the most), unscorable
    (answers whose gold cannot be read, which count as wrong) and the shares of right answers.

    With one answer a problem a share is a proportion with Wilson's interval. With several it is the
    mean over problems (mean@n) with an interval over problems, and there are `mean`, `pass` and
    `maj` by score and k.
    """
    problems = by_problem(answers)
    samples = min(map(len, problems))
    unscorable = sum(answer["outcome"] == "unscorable" for answer in answers)
    found: dict[str, Any] = {
        "n": len(problems),
        "samples": samples,
        "samples_most": max(map(len, problems)),
        "unscorable": unscorable,
    }
    if len(answers) == len(problems):
        right = {name: sum(answer[name] for answer in answers) for name in SCORES}
        return found | {name: vars(proportion(right[name], len(answers))) for name in SCORES}
    for name in SCORES:
        shares = [sum(answer[name] for answer in each) / len(each) for each in problems]
        counts = {"successes": sum(answer[name] for answer in answers), "n": len(answers)}
        found[name] = counts | _interval(shares, answers)
    right = ("strict", "lenient")
    found["mean"] = {name: {k: found[name][k] for k in ("mean", "low", "high")} for name in right}
    found["pass"] = {name: _pass(problems, answers, name, samples) for name in right}
    found["maj"] = {name: _majority(problems, answers, name) for name in right}
    return found


def by_problem(answers: Iterable[Answer]) -> list[list[Answer]]:
    """The answers to each problem, in the order in which the problems come."""
    problems: dict[Any, list[Answer]] = {}
    for answer in answers:
        problems.setdefault(answer["row"], []).append(answer)
    return list(problems.values())


def _pass(
    problems: list[list[Answer]], answers: Sequence[Answer], score: str, samples: int
) -> dict[str, Any]:
    counts = [(len(each), sum(answer[score] for answer in each)) for each in problems]
    return {
        str(k): _interval([pass_at(k, n=n, right=right) for n, right in counts], answers)
        for k in ks(samples)
    }


def _majority(
    problems: list[list[Answer]], answers: Sequence[Answer], score: str
) -> dict[str, Any]:
    judged = [[(answer["completion"], _verdict(answer)) for answer in each] for each in problems]
    ballots = votes(judged, strict=score == "strict")
    samples = min(map(len, problems))
    return {
        str(k): _interval([majority_at(k, **vars(ballot)) for ballot in ballots], answers)
        for k in ks(samples)
    }


def _verdict(answer: Answer) -> Verdict:
    return Verdict(**{name: answer[name] for name in SCORES})


def _interval(shares: Sequence[float], answers: Sequence[Answer]) -> dict[str, float]:
    share = mean_share(shares, answers=len(answers))
    return {"mean": share.mean, "low": share.low, "high": share.high}


def write(path: Path, summary: dict[str, Any], answers: Iterable[Answer]) -> None:
    """PATH.json and beside it the .jsonl with every answer; a kill leaves no half of either.

    The summary goes first and comes last, so that one is never seen beside another's answers.
    """
    made(path.parent)
    with whole(path.with_name(f"{path.stem}.jsonl")) as file:
        for answer in answers:
            text = json.dumps(answer, ensure_ascii=False) + "\n"
            file.write(text.encode("utf-8", "replace"))
        file.flush()
        path.unlink(missing_ok=True)
    write_json(path, summary)


def line(summary: dict[str, Any]) -> str:
    """The summary for the terminal: one line, or with several answers a problem one a score."""
    several = "pass" in summary
    name = summary["label"]
    if summary["evaluation"] not in ("evaluation", None):
        name = f"{name}, {summary['evaluation']}"
    end = f"in {duration(summary['seconds'])}"
    if summary.get("unscorable"):
        end += f"  unscorable: {summary['unscorable']:,} (gold cannot be read, counted as wrong)"
    if not several:
        shares = "  ".join(f"{score} {_percent(summary[score])}" for score in SCORES)
        return f"{name}: {shares}  n={summary['n']:,}  {end}"
    n, most = summary["samples"], summary["samples_most"]
    each = (
        f"{n} answers to each"
        if n == most
        else (
            f"{n} to {most} answers to each, so pass@k and maj@k go up to {n}, mean@n is over all"
        )
    )
    lines = [f"{name}: {summary['n']:,} problems, {each}, {end}"]
    for score in ("strict", "lenient"):
        passed = "  ".join(
            f"pass@{k} {share['mean']:.1%}" if int(k) < n else f"pass@{k} {_percent(share)}"
            for k, share in summary["pass"][score].items()
            if k != "1"
        )
        majority = _percent(summary["maj"][score][str(n)])
        mean = f"mean@{'n' if n < most else n} {_percent(summary[score])}"
        lines.append(f"  {score:<8}{mean}  {passed}  maj@{n} {majority}")
    lines.append(f"  {'format':<8}{_percent(summary['format'])}")
    return "\n".join(lines)


def _percent(share: dict[str, float]) -> str:
    return f"{share['mean']:.1%} [{share['low']:.1%}, {share['high']:.1%}]"
