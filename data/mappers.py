"""From a source's own row to TRL's standard columns, one function a shape.

A mapper never invents: where a row lacks what a column needs (no boxed answer, an equation that
does not give the stated answer) that column is None; a row of no use at all is Unusable, and the
caller leaves it out and counts it. It raises KeyError, TypeError, ValueError or
AttributeError on a row of another make; the caller adds which row it was.

Golds are written so that a reward can parse them: plain numbers plainly (`2.0` -> `2`), LaTeX in
`\\boxed{}`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from data.countdown import solves
from data.dialogues import normalise
from data.equations import EquationError, number, plain_number, work
from data.left_out import Unusable
from data.prompts import worked
from data.rows import CONTENT_COLUMNS, Message, Row, assistant, user

_CALCULATOR = re.compile(r"<<[^<>]*>>")
_STRATOS = re.compile(
    r"\s*<\|begin_of_thought\|>(?P<thought>.*?)<\|end_of_thought\|>"
    r"\s*<\|begin_of_solution\|>(?P<solution>.*?)(?:<\|end_of_solution\|>)?\s*",
    re.DOTALL,
)


def boxed(text: str) -> str | None:
    """The content of the last complete `\\boxed{…}`, braces balanced, or None."""
    for start in reversed([found.end() for found in re.finditer(r"\\f?boxed\s*\{", text)]):
        depth, position = 1, start
        while position < len(text) and depth:
            step = text[position]
            if step == "\\":
                position += 1  # an escaped brace is no brace
            depth += {"{": 1, "}": -1}.get(step, 0)
            position += 1
        if not depth:
            return text[start : position - 1].strip() or None
    return None


def gold(text: str) -> str:
    """An answer as a gold: a plain number plainly, everything else in `\\boxed{}`."""
    return plain_number(text) if number(text) is not None else f"\\boxed{{{text.strip()}}}"


def mawps(row: Row) -> Row:
    """MAWPS: original_text, equation, ans."""
    return _word_problem(row["original_text"], row["equation"], row["ans"])


def svamp(row: Row) -> Row:
    """SVAMP: Body, Question, Equation, Answer."""
    body = row["Body"].strip()
    stop = "" if body.endswith((".", "?", "!", ",")) else "."
    return _word_problem(f"{body}{stop} {row['Question'].strip()}", row["Equation"], row["Answer"])


def _word_problem(question: str, equation: str, answer: Any) -> Row:
    """The equation worked out step by step is the completion, provided that it gives the stated
    answer.
    """
    solution = plain_number(answer)
    try:
        solved = work(equation)
        agrees = bool(solved.lines) and solved.value == number(answer)
    except EquationError:
        agrees = False
    return {
        "prompt": user(question.strip()),
        "completion": assistant(worked("\n".join(solved.lines), solution)) if agrees else None,
        "solution": solution,
    }


def countdown(row: Row) -> Row:
    """Countdown: nums, target, perhaps a worked solution. The gold is the target's value.

    `nums` and `target` travel along: by them `judge` tells an expression from the bare target. The
    row's own prompt, which ends inside the assistant's turn, is not used.
    """
    numbers, target = [int(each) for each in row["nums"]], plain_number(row["target"])
    question = (
        f"Using the numbers {numbers}, write an expression that equals {target}. "
        "You may use + - * / and brackets, and each number at most once."
    )
    return {
        "prompt": user(question),
        "completion": _countdown_completion(row.get("solution"), numbers, int(row["target"])),
        "solution": target,
        "nums": numbers,
        "target": int(row["target"]),
    }


def _countdown_completion(
    text: str | None, numbers: Sequence[int], target: int
) -> list[Message] | None:
    found = re.fullmatch(
        r"\s*(?:<think>)?(.*?)</think>\s*<answer>(.*?)</answer>\s*", text or "", re.DOTALL
    )
    if found is None or not solves(found[2], numbers=numbers, target=target):
        return None
    return assistant(worked(found[1], found[2]))


def math(row: Row) -> Row:
    """MATH-500: problem, answer, solution, level, subject."""
    kept = {column: row[column] for column in ("level", "subject") if column in row}
    return {"prompt": user(row["problem"].strip()), "solution": gold(row["answer"])} | kept


def numinamath(row: Row) -> Row:
    """NuminaMath-TIR: problem, solution, messages; the last boxed answer is the gold.

    The whole solution, which calls tools, stays in `reference`; it is no completion to train on
    without them.
    """
    whole = row["solution"] or ""
    answer = boxed(whole)
    if answer is None and row.get("messages"):
        answer = boxed(normalise(row["messages"])[-1]["content"])
    return {
        "prompt": user(row["problem"].strip()),
        "solution": None if answer is None else gold(answer),
        "reference": whole,
    }


def question_answer(row: Row) -> Row:
    """GSM8K (`answer` is worked and ends `#### 18`) and reasoning-gym (`answer` is the gold
    itself).
    """
    answer = "" if row["answer"] is None else row["answer"]
    text = answer if isinstance(answer, str) else plain_number(answer)
    thinking, mark, final = text.rpartition("####")
    solution = plain_number(final) or None
    completion = None
    if mark and solution:
        # The calculator calls <<48/2=24>> are for a tool that is not there.
        completion = assistant(worked(_CALCULATOR.sub("", thinking), solution))
    return {"prompt": user(row["question"].strip()), "completion": completion, "solution": solution}


def instruct(row: Row) -> Row:
    """Alpaca style: instruction, input (may be empty), output."""
    parts = (row["instruction"].strip(), (row.get("input") or "").strip())
    return {
        "prompt": user("\n\n".join(filter(None, parts))),
        "completion": assistant(row["output"].strip()),
    }


def conversations(row: Row) -> Row:
    """ShareGPT style: conversations of from/value, perhaps a system text (Bespoke-Stratos).

    Stratos' own tags become <think> and <answer>; its system prompt, which teaches those tags, goes
    with them.
    """
    messages = normalise(row["conversations"])
    system = (row.get("system") or "").strip()
    if "<|begin_of_thought|>" in system:
        system = ""
    for each in messages:
        if each["role"] == "assistant" and (found := _STRATOS.fullmatch(each["content"])):
            each["content"] = worked(found["thought"], found["solution"])
    return {"messages": ([{"role": "system", "content": system}] if system else []) + messages}


def labelled_text(row: Row) -> Row:
    """Text with a label of 0 or 1, white space made single; see `labelled` for its uses."""
    if row["label"] not in (0, 1) or not isinstance(row["label"], int):
        raise ValueError("a label is 0 (negative) or 1 (positive), or false or true")
    text = " ".join(row["text"].split())
    if not text:
        raise Unusable("with an empty text")
    return {"text": text, "label": bool(row["label"])}


def standard(row: Row) -> Row:
    """Rows that have TRL's columns already; messages of from/value become role/content, the rest
    travels along.
    """
    row = dict(row)
    for column in CONTENT_COLUMNS:
        if isinstance(row.get(column), list):
            row[column] = normalise(row[column])
    # Of another type it stays as it is, for the validator to refuse: a list's text is no answer.
    if type(row.get("solution")) in (str, int, float):
        row["solution"] = plain_number(row["solution"])
    return row
