"""Recipes whose rewards or rows are out of the ordinary, and good: no error, with the trial on."""

import pytest
from mistaken import check, errors, golds, problems, user, warnings, without, write


def worked(i, row):
    return f"We add {i} and {i + 1}, and see that it is \\boxed{{{row['solution']}}}. " * 2


UNUSUAL = {
    "another column, plus or minus 1": (
        lambda: without(problems(answer=golds), "solution"),
        ["signed", "answer"],
        ["-1 for all 16 completions: such steps"],
    ),
    "a gate that opens once in 20 rows": (
        lambda: problems(60, kind=lambda i, row: "math" if i % 20 == 7 else "chat"),
        ["rare", "math"],
        ["does not apply"],
    ),
    "a gate that opens once in 5 rows": (
        lambda: problems(60, kind=lambda i, row: "math" if i % 5 == 2 else "chat"),
        ["rare", "math"],
        [],
    ),
    "golds that are whole solutions": (lambda: problems(solution=worked), ["accuracy"], ["0 for"]),
    "a length that is wanted": (
        lambda: problems(solution=lambda i, row: str(20 + 3 * i)),
        ["as_long"],
        ["other rows' answers"],
    ),
    "a number to repeat": (
        lambda: problems(
            prompt=lambda i, row: user(f"Repeat this number: {37 * i}"),
            solution=lambda i, row: str(37 * i),
        ),
        ["exact"],
        ["leak", "0 for"],
    ),
    "a number to choose": (
        lambda: problems(
            prompt=lambda i, row: user(f"Which is the largest: {i}, {i + 3}, {i + 9}?"),
            solution=lambda i, row: str(i + 9),
        ),
        ["exact"],
        ["leak", "0 for"],
    ),
    "minus one to none": (lambda: problems(), ["negative"], ["-1 for all 16 completions: such"]),
    "a coroutine": (lambda: problems(), ["later"], ["0 for"]),
    "slow": (lambda: problems(), ["slow"], ["0 for"]),
    "one that remembers": (lambda: problems(), ["novelty"], ["or something that it remembers"]),
    "a length of tokens": (lambda: problems(), ["counted"], []),
    "several right answers": (
        lambda: without(problems(accepted=lambda i, row: [row["solution"], "odd"]), "solution"),
        ["any_of", "accepted"],
        ["0 for"],
    ),
    "programs that are run": (
        lambda: without(problems(tests=lambda i, row: f"assert f() == {i}"), "solution"),
        ["runs_tests"],
        ["0 for"],
    ),
    "golds of a few words": (
        lambda: problems(solution=lambda i, row: "none" if i % 3 else "some"),
        ["accuracy"],
        ["0 for"],
    ),
    "worked answers of another form": (
        lambda: problems(
            completion=lambda i, row: [{"role": "assistant", "content": f"It is {i}"}]
        ),
        ["accuracy"],
        ["0 for"],
    ),
    "programs with tests": (
        lambda: problems(
            solution=lambda i, row: f"def f():\n    return {i}",
            tests=lambda i, row: f"assert f() == {i}" + " # or so" * 60,
        ),
        ["tested"],
        ["reads tests, not solution", "0 for"],
    ),
}


@pytest.mark.parametrize("name", UNUSUAL)
def test_unusual_recipes_are_not_refused(name, tmp_path):
    make, own, words = UNUSUAL[name]
    file, hurt = write(tmp_path, make()), ["mistaken.reward", *own]
    code, text, _ = check(tmp_path, "grpo", "--data", file, hurt=hurt, trial=True)
    assert (code, errors(text)) == (0, []), text
    for word in words:
        assert word in " ".join(warnings(text)), (word, text)
    expected = [*words, "were cut"]
    assert not [one for one in warnings(text) if not any(word in one for word in expected)], text
