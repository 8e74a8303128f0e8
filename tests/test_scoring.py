"""Verdicts on texts alone, votes among equal answers, and ready completions from a file."""

import json
import subprocess
import sys

import pytest
import runs

from align.evaluation import completions, results, scoring
from align.evaluation.scoring import Votes, verdicts, votes
from data.rows import DataError, RowError

GOLD = "She sells 16 - 3 - 4 = <<16-3-4=9>>9 eggs.\nShe makes 9 * 2 = $<<9*2=18>>18.\nA: 18"
# (completion, strict, lenient, format), all held against the worked solution above
CASES = (
    ("9 eggs at $2 make 9 * 2 = $<<9*2=18>>18\nA: 18", 0, 1, 0),
    ("9 eggs at $2 make 9 * 2 = $<<9*2=18.0>>18.0\nA: 18.0", 0, 1, 0),
    ("She has 16 - 3 = <<16-3=13>>13, so 13 * 2 = $<<13*2=26>>26\nA: 26", 0, 0, 0),
    ("18 at most: 16 - 3 = <<16-3=13>>13 eggs, then 13 * 2 = $<<13*2=2", 0, 0, 0),
    ("", 0, 0, 0),
    ("A:", 0, 0, 0),
    ("<think>9 * 2 = <<9*2=18>>18</think>\n<answer>18</answer>", 1, 1, 1),
    ("<think>9 * 2 = <<9*2=18>>18\nA: 18</think>\n<answer>A: $18</answer>", 1, 1, 1),
    ("<think>9 * 2 = <<9*2=18>>18\nA: 18</think>\n<answer></answer>", 0, 0, 1),
    ("<think>9 * 2 = <<9*2=18>>18</think>\n<answer>26</answer>", 0, 0, 1),
    ("<think>9 * 2</think>\n<answer>18</answer> I hope so.", 0, 1, 0),
)


def test_verdicts_on_worked_solutions():
    texts = [text for text, *_ in CASES]
    for solutions in ([GOLD] * len(CASES), ["18"] * len(CASES), ["9 * 2\n#### 18"] * len(CASES)):
        found = verdicts(texts, solutions)
        assert [(v.strict, v.lenient, v.format) for v in found] == [tuple(c[1:]) for c in CASES]
    messages = [[{"role": "assistant", "content": text}] for text in texts]
    assert verdicts(messages, solutions) == found


def test_a_gold_that_cannot_be_read_makes_nothing_right():
    (verdict,) = verdicts(["<think>x</think><answer>blue</answer>"], ["none that we know of here"])
    assert (verdict.strict, verdict.lenient, verdict.format) == (0, 0, 1)


def test_scoring_needs_no_torch():
    modules = "align.evaluation.scoring, align.evaluation.completions"
    code = f"import sys, {modules}; print('torch' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=runs.REPOSITORY, capture_output=True, text=True
    )
    assert done.stdout.strip() == "False", done.stderr


def judged(solution, *texts):
    return list(zip(texts, verdicts(texts, [solution] * len(texts)), strict=True))


def test_equal_answers_vote_together():
    tagged = "<think>x</think><answer>{}</answer>".format
    problem = judged(
        "18",
        tagged("1/2"),
        "So the answer is 0.5",
        r"\boxed{\frac{1}{2}}",
        tagged("0.25"),
        "A: 18",
        tagged("$18"),
        "I do not know",
        tagged(""),
    )
    other = judged("7", tagged("8"), tagged("9"))
    assert votes([problem, other]) == [
        Votes(right=2, wrong=(1, 3), silent=2),
        Votes(right=0, wrong=(1, 1), silent=0),
    ]
    # Strictly, what is out of form has no vote.
    assert votes([problem], strict=True) == [Votes(right=1, wrong=(1, 1), silent=5)]


def test_boards_are_equal_only_as_texts():
    """Read as a gold, a text of several lines is its last number: 1 here, as the other begins."""
    board = "<think>x</think><answer>{}</answer>".format
    texts = ["1\n3 1", "1\n3 1", "1\n7 7"]
    (found,) = votes([judged("5 6", *map(board, texts))])
    assert found == Votes(right=0, wrong=(1, 2), silent=0)


def answers(*problems):
    """Rows as an evaluation writes them; a problem is its completions, all against the gold 3."""
    rows = []
    for row, texts in enumerate(problems):
        for sample, (text, verdict) in enumerate(judged("3", *texts)):
            rows.append({"row": row, "sample": sample, "completion": text} | vars(verdict))
    return rows


def test_several_answers_a_problem():
    good, bad, bare = "<think>x</think><answer>3</answer>", "A: 4", "A: 3"
    found = results.figures(
        answers([good, bare, bare, bad], [bad, bad, "A: 8/2", good], [bad, "A: 5", "A: 6", ""])
    )
    assert (found["n"], found["samples"]) == (3, 4)
    assert (found["lenient"]["successes"], found["lenient"]["n"]) == (4, 12)
    assert found["mean"]["lenient"]["mean"] == pytest.approx((3 + 1 + 0) / 12)
    assert found["mean"]["strict"]["mean"] == pytest.approx(2 / 12)
    assert list(found["pass"]["lenient"]) == list(found["maj"]["strict"]) == ["1", "2", "4"]
    # 1 − C(1, 2)/C(4, 2) = 1 and 1 − C(3, 2)/C(4, 2) = 1/2.
    assert found["pass"]["lenient"]["2"]["mean"] == pytest.approx((1 + 1 / 2 + 0) / 3)
    assert found["pass"]["strict"]["4"]["mean"] == pytest.approx(2 / 3)
    # Three 3s to one 4; three 4s to one 3; no 3 at all.
    assert found["maj"]["lenient"]["4"]["mean"] == pytest.approx(1 / 3)
    # In the form there is one answer each, and it is right.
    assert found["maj"]["strict"]["4"]["mean"] == pytest.approx(2 / 3)
    for share in (found["strict"], found["pass"]["strict"]["4"], found["maj"]["lenient"]["2"]):
        assert 0 <= share["low"] < share["mean"] < share["high"] <= 1


def test_the_lines_for_the_terminal():
    found = results.figures(answers(["A: 3", "A: 4"], ["A: 3", "A: 3"]))
    said = results.line(found | {"label": "sft", "evaluation": "hard", "seconds": 61.0})
    first, strict, lenient, form = said.splitlines()
    assert first == "sft, hard: 2 problems, 2 answers to each, in 1:01"
    assert strict.startswith("  strict  mean@2 0.0% [")
    assert lenient.startswith("  lenient mean@2 75.0% [")
    assert "pass@2 100.0% [" in lenient
    assert "maj@2 75.0% [" in lenient
    assert form.startswith("  format  0.0% [")


def write(folder, rows):
    file = folder / "answers.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return file


def read(out, label):
    folder = out / "evaluations"
    rows = (folder / f"{label}.jsonl").read_text().splitlines()
    return json.loads((folder / f"{label}.json").read_text()), [json.loads(row) for row in rows]


def test_ready_completions_are_scored_from_a_file(tmp_path):
    rows = [{"question": f"Q{i}", "answer": GOLD, "completion": c[0]} for i, c in enumerate(CASES)]
    rows[1]["completion"] = [{"role": "assistant", "content": rows[1]["completion"]}]
    rows[2] |= {"solution": "26"}
    file = write(tmp_path, rows)
    command = [sys.executable, "scripts/evaluate.py", "--completions", str(file), "--out"]
    done = subprocess.run(
        [*command, str(tmp_path / "out")], cwd=runs.REPOSITORY, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    summary, written = read(tmp_path / "out", "answers")
    expected = [case[1:] for case in CASES]
    expected[2] = (0, 1, 0)  # `solution` goes before `answer`
    assert [(r["strict"], r["lenient"], r["format"]) for r in written] == expected
    assert [row["prompt"] for row in written] == [row["question"] for row in rows]
    assert written[1]["completion"] == CASES[1][0]
    assert (summary["n"], summary["samples"], summary["model"]) == (len(CASES), 1, None)
    assert (summary["strict"]["successes"], summary["lenient"]["successes"]) == (2, 6)
    assert f"n={len(CASES)}" in done.stdout


def test_several_answers_in_a_row_and_a_result_scored_again(tmp_path):
    file = write(
        tmp_path,
        [
            {"prompt": "2 + 1", "solution": "3", "completion": ["A: 3", "A: 4", "A: 3"]},
            {
                "prompt": [{"role": "user", "content": "4 + 1"}],
                "solution": 5,
                "completion": [[{"role": "assistant", "content": f"A: {n}"}] for n in (4, 5, 6)],
            },
        ],
    )
    first = completions.score(file, label="first", out=tmp_path)
    assert (first["n"], first["samples"]) == (2, 3)
    assert first["mean"]["lenient"]["mean"] == pytest.approx((2 / 3 + 1 / 3) / 2)
    _, rows = read(tmp_path, "first")
    assert [(row["row"], row["sample"]) for row in rows] == [
        (i, j) for i in (0, 1) for j in range(3)
    ]
    assert rows[-1]["prompt"] == "4 + 1"
    file = tmp_path / "evaluations" / "first.jsonl"
    again = completions.score(file, label="again", out=tmp_path)
    for name in ("n", "samples", "strict", "lenient", "format", "mean", "pass", "maj"):
        assert again[name] == first[name]


def test_the_columns_that_tell_a_rule_are_kept_for_the_next_scoring(tmp_path):
    numbers = {"solution": "24", "nums": [3, 8, 3, 8], "target": 24}
    made = {"source_dataset": "bitwise_arithmetic", "problem": "0x1 + 0x1e"}
    bits = {"solution": "0x1f", "task": "bitwise_arithmetic", "metadata": json.dumps(made)}
    form = "<think>x</think><answer>{}</answer>".format
    rows = [
        numbers | {"completion": form("8/(3-8/3)")},
        numbers | {"completion": form("24")},
        bits | {"completion": form("31")},
    ]
    completions.score(write(tmp_path, rows), label="x", out=tmp_path)
    assert [answer["strict"] for answer in read(tmp_path, "x")[1]] == [1, 0, 1]
    completions.score(tmp_path / "evaluations" / "x.jsonl", label="y", out=tmp_path)
    assert read(tmp_path, "y")[1] == read(tmp_path, "x")[1]


def test_other_columns_of_a_file_do_no_harm(tmp_path):
    others = dict.fromkeys(("completions", "solutions", "self", "columns", "prompts"), "x")
    row = {"solution": "3", "completion": "A: 3"} | others
    assert completions.score(write(tmp_path, [row]), label="x", out=tmp_path)["n"] == 1


def test_golds_that_cannot_be_read_are_counted(tmp_path):
    rows = [{"solution": "3", "completion": "A: 3"}]
    rows += [{"solution": "none that we know of here", "completion": "A: 3"}] * 2
    summary = completions.score(write(tmp_path, rows), label="x", out=tmp_path)
    assert (summary["unscorable"], summary["lenient"]["successes"]) == (2, 1)
    assert results.line(summary).endswith("  unscorable: 2 (gold cannot be read, counted as wrong)")
    assert [answer["outcome"] for answer in read(tmp_path, "x")[1]] == ["ok"] + ["unscorable"] * 2


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"completion": "A: 3"}, "2nd row, column 'solution'"),
        ({"solution": "3"}, "2nd row, column 'completion'"),
        ({"solution": "3", "completion": ["A: 3", 4]}, "2nd row, column 'completion'"),
        ({"solution": "3", "completion": []}, "2nd row, column 'completion'"),
        ({"solution": "3", "completion": None}, "2nd row, column 'completion'"),
        ({"solution": "3", "completion": [{"role": "assistant"}]}, "2nd row, column 'completion'"),
        ({"solution": "3", "completion": [{"content": None}]}, "2nd row, column 'completion'"),
        ({"solution": "3", "completion": ["A: 3", []]}, "2nd row, column 'completion'"),
        (
            {"solution": "3", "completion": "3", "nums": ["a"], "target": 3},
            "2nd row, column 'nums'",
        ),
        (
            {"solution": "3", "completion": "A: 3", "row": 0},
            "1st row, column 'row'.*found NoneType",
        ),
    ],
)
def test_a_row_without_answer_or_gold_is_named(tmp_path, row, said):
    file = write(tmp_path, [{"solution": "3", "completion": "A: 3"}, row])
    with pytest.raises(RowError, match=said):
        completions.score(file, label="x", out=tmp_path)
    assert not (tmp_path / "evaluations").exists()


@pytest.mark.parametrize("other", [{"solution": "4"}, {"prompt": "Q"}])
def test_rows_of_one_number_are_one_problem(tmp_path, other):
    row = {"row": 7, "solution": "3", "completion": "A: 3"}
    with pytest.raises(
        RowError, match=r"2nd row, column 'row'.*another prompt or gold, found int 7"
    ):
        completions.score(write(tmp_path, [row, row | other]), label="x", out=tmp_path)


def test_a_file_that_is_not_there_ends_with_a_sentence(tmp_path):
    with pytest.raises(DataError, match="no file"):
        completions.score(tmp_path / "none.jsonl", label="x", out=tmp_path)


def test_a_kill_while_writing_leaves_the_old_result_or_none(tmp_path, monkeypatch):
    path = tmp_path / "evaluations" / "sft.json"
    results.write(path, {"n": 1}, [{"row": 0}])

    def killed(*_):
        raise KeyboardInterrupt

    def lines():
        yield {"row": 0}
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        results.write(path, {"n": 2}, lines())
    assert read(tmp_path, "sft") == ({"n": 1}, [{"row": 0}])
    monkeypatch.setattr(results, "write_json", killed)
    with pytest.raises(KeyboardInterrupt):
        results.write(path, {"n": 2}, [{"row": 0}, {"row": 1}])
    assert not path.exists()
    assert len((tmp_path / "evaluations" / "sft.jsonl").read_text().splitlines()) == 2


def test_scoring_says_what_it_compared(monkeypatch):
    """Identical texts are one vote without a comparison, and each pair is compared once."""
    asked = []
    real = scoring.equal
    monkeypatch.setattr(scoring, "equal", lambda pairs: asked.extend(pairs) or real(pairs))
    votes([judged("3", "A: 4", "A: 4", "A: 8/2", "A: 3"), judged("3", "A: 4", "A: 8/2")])
    assert asked == [("4", "8/2")]


def test_a_file_without_completions_names_its_columns(tmp_path):
    with pytest.raises(DataError, match="no column 'completion'; it has response, gold"):
        completions.score(
            write(tmp_path, [{"response": "3", "gold": "3"}]), label="x", out=tmp_path
        )


def test_uneven_numbers_of_answers_are_said(tmp_path):
    rows = [{"solution": "3", "completion": ["3", "3"]}, {"solution": "3", "completion": ["4"]}]
    summary = completions.score(write(tmp_path, rows), label="x", out=tmp_path)
    assert (summary["samples"], summary["samples_most"]) == (1, 2)
    said = results.line(summary)
    assert "1 to 2 answers to each" in said and "mean@n 50.0%" in said and "mean@1" not in said
