"""Accuracy on real worked solutions of three data sets, ended in the ways of weaker models, right
and wrong.
"""

import json
import random
import re
from pathlib import Path

import rewards

ENDINGS = [
    "#### {v}",
    "#### {v} {u}",
    "####{v}",
    "A: {v}",
    "A: ${v}",
    "A: {v} {u}.",
    "Answer: {v}",
    "**Answer: ${v}**",
    "The answer is {v}.",
    "The answer is ${v}.",
    "So the answer is: {v} {u}.",
    "The final answer is $\\boxed{{{v}}}$.",
    "\\[\\boxed{{{v}\\text{{ {u}}}}}\\]",
    "<answer>{v}</answer>",
    "<answer>\n{v} {u}\n</answer>",
    "Therefore, Janet has {v} {u}.",
    "So the total is 5 + 7 = {v}.",
    "Final Answer: The final answer is ${v}$. I hope it is correct.",
    "The answer is **{v}**.",
    "A: Tom has {v} {u}.",
    "A: In 7 days Tom has {v} {u}.",
    "Thus, Tom needs $5 + 7 = {v}$ {u}.",
    "Answer:\n{v}",
    "### Final Answer\n\n**{v} {u}**",
    "She has <<5+7={v}>>{v} {u}.",
    "答案是{v}。",
    "The answer would be {v} {u}.",
    "{v}",
]
UNITS = ["dollars", "eggs per day", "miles per hour", "years old", "square feet", "cups of flour"]


def rows(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().rstrip("\n").split("\n")]


def forms(value: str) -> list[str]:
    """A number as models write it."""
    if re.fullmatch(r"-?\d+", value):
        return [value, f"{int(value):,}", f"{value}.00"]
    return [value]


def test_gsm8k_solutions_with_every_ending(shared_data: Path) -> None:
    rng = random.Random(0)
    completions, golds, labels = [], [], []
    for row in rows(shared_data / "gsm8k" / "test.jsonl")[:200]:
        body, _, value = row["answer"].partition("\n#### ")
        value = value.replace(",", "")
        plain = re.sub(r"<<[^>]*>>", "", body)
        wrong = [str(int(value) + 1), f"{value}0", f"-{value}", f"{value}.5", f"1{value}"]
        for ending in ENDINGS:
            for said, label in ((value, 1.0), (rng.choice(wrong), 0.0)):
                text = ending.format(v=rng.choice(forms(said)), u=rng.choice(UNITS))
                completions.append(f"{rng.choice([body, plain])}\n{text}")
                golds.append(rng.choice([row["answer"], value, f"{int(value):,}"]))
                labels.append(label)
    values = rewards.get("accuracy")(completions, solution=golds)
    cases = zip(completions, golds, labels, values, strict=True)
    wrong_cases = [(g[-12:], c[-80:], v) for c, g, label, v in cases if v != label]
    assert len(values) == 200 * 2 * len(ENDINGS)
    assert not wrong_cases, (len(wrong_cases), wrong_cases[:5])


def test_gsm8k_solutions_accept_themselves(shared_data: Path) -> None:
    answers = [row["answer"] for row in rows(shared_data / "gsm8k" / "train.jsonl")]
    assert rewards.get("accuracy")(answers, solution=answers) == [1.0] * len(answers)
    shifted = answers[1:] + answers[:1]
    same = [
        a.rpartition("#### ")[2] == b.rpartition("#### ")[2]
        for a, b in zip(answers, shifted, strict=True)
    ]
    assert rewards.get("accuracy")(shifted, solution=answers) == [float(s) for s in same]


def test_mawps_and_svamp(shared_data: Path) -> None:
    """Their golds are floats (7.0, 0.25); an equation that gives the value is an answer too."""
    pairs = [
        (row["Equation"], row["Answer"]) for row in rows(shared_data / "svamp" / "svamp.jsonl")
    ]
    pairs += [(row["equation"], row["ans"]) for row in rows(shared_data / "mawps" / "valid.jsonl")]
    golds = [str(gold) for _, gold in pairs]
    rounded = [str(int(float(g))) if float(g).is_integer() else g for g in golds]
    for ending in ENDINGS:
        said = [ending.format(v=v, u=UNITS[0]) for v in rounded]
        assert rewards.get("accuracy")(said, solution=golds) == [1.0] * len(golds), ending
        off = [ending.format(v=str(float(v) + 1), u=UNITS[0]) for v in rounded]
        assert rewards.get("accuracy")(off, solution=golds) == [0.0] * len(golds), ending
