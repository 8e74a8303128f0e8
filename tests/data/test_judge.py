"""Countdown and reasoning-gym rows judged by their own rule, beside rows judged by their value."""

import json

import pytest

import data
from data.countdown import solves
from data.judge import Judge
from data.mappers import countdown

FOUR = (47, 76, 55, 60)


@pytest.mark.parametrize(
    ("text", "right"),
    [
        ("(76 - 60) + (55 - 47)", True),
        ("76-60+55-47 = 24", True),
        ("(76 − 60) + (55 - 47)", True),
        ("24", False),
        ("24 = 76-60+55-47", True),
        ("24 = 76-60+55-47 = 24", False),
        ("76-60+55-47 = 25", False),
        ("25 = 76-60+55-47", False),
        ("7_6-60+55-47", False),
        ("76-60+55-47 # the numbers", False),
        ("7.6e1-60+55-47", False),
        ("76-60+55-46", False),
        ("76-60+55", False),
        ("12*2", False),
        ("(76-60)+(76-60)-(55-47)", False),
        ("__import__('os').getpid()", False),
        ("76 ** 1 - 52", False),
        ("(76-60+55-47", False),
        ("", False),
        ("(" * 200 + "24" + ")" * 200, False),
    ],
)
def test_an_expression_of_the_numbers_that_gives_the_target(text, right):
    assert solves(text, numbers=FOUR, target=24) is right


def test_values_are_exact_and_each_number_counts_as_often_as_it_is_there():
    assert solves("8 / (3 - 8 / 3)", numbers=(3, 8, 3, 8), target=24)
    assert solves(r"8 \times 3", numbers=(3, 8, 3, 8), target=24)
    assert not solves("8 * 3", numbers=(3, 8, 3, 8), target=24, every=True)
    assert solves("8 * 3 + 8 - 8", numbers=(3, 8, 8, 8), target=24, every=True)
    assert not solves("8 * 3", numbers=(8, 4, 1), target=24)
    assert not solves("1 / 0", numbers=(1, 0), target=1)


def test_a_worked_countdown_row_may_pass_through_fractions():
    row = {"nums": [3, 8, 3, 8], "target": 24, "solution": "x</think><answer>8/(3-8/3)</answer>"}
    assert countdown(row)["completion"][0]["content"].endswith("<answer>8/(3-8/3)</answer>")


def tagged(answer):
    return f"<think>x</think>\n<answer>{answer}</answer>"


def test_each_row_is_judged_by_its_own_rule():
    """The columns of a mixture are null where a row's source has none."""
    scores = Judge().score(
        [
            tagged("24"),
            tagged("76-60+55-47"),
            tagged("24"),
            [{"role": "assistant", "content": "25"}],
        ],
        solution=["24"] * 4,
        nums=[list(FOUR), list(FOUR), None, None],
        target=[24, 24, None, None],
    )
    assert [score.correct for score in scores] == [0.0, 1.0, 1.0, 0.0]
    assert [score.parts for score in scores] == [{"accuracy": score.value} for score in scores]


def test_a_box_in_the_tag_is_unwrapped():
    columns = {"solution": ["24"] * 3, "nums": [[4, 6]] * 3, "target": [24] * 3}
    texts = [r"\boxed{4*6}", r"It is $\boxed{24 = 4 \times 6}$.", r"\boxed{24}"]
    assert judged(columns, [tagged(text) for text in texts]) == [1.0, 1.0, 0.0]


@pytest.mark.parametrize(
    ("columns", "said"),
    [
        ({"nums": 5, "target": 24}, "2nd row, column 'nums'.*nums=.*found int 5"),
        ({"nums": ["a"], "target": 24}, "2nd row, column 'nums'"),
        ({"nums": [4, float("nan")], "target": 24}, "2nd row, column 'nums'"),
        ({"nums": [4, 6], "target": "24"}, "2nd row, column 'target'.*found str '24'"),
        ({"task": "puzzle24", "metadata": {"source_dataset": "puzzle24"}}, "column 'metadata'"),
        (
            {
                "task": "countdown",
                "metadata": {"source_dataset": "countdown", "numbers": [4, 6], "target": None},
            },
            "column 'metadata'",
        ),
    ],
)
def test_a_countdown_without_numbers_is_named(columns, said):
    columns = {name: [None, value] for name, value in columns.items()}
    if "metadata" in columns:
        columns["metadata"][1] = json.dumps(columns["metadata"][1])
    with pytest.raises(data.RowError, match=said):
        Judge().score([tagged("24"), tagged("4*6")], solution=["24"] * 2, **columns)


def test_without_columns_it_is_accuracy():
    assert Judge()(["A: 18", "A: 17"], solution=["18", "18"]) == [1.0, 0.0]
    assert Judge(unparseable=0.25)(["A: 18"], solution=["no idea at all"]) == [0.25]
    # Columns of these names that are not reasoning-gym's.
    columns = {"task": ["algebra"], "metadata": ['{"level": 5}']}
    assert Judge()([r"\boxed{1+x}"], solution=[r"\boxed{x+1}"], **columns) == [1.0]


def gym(task, **params):
    pytest.importorskip("reasoning_gym")
    rows = data.ReasoningGym(task=task, size=3, params=tuple(params.items())).rows()
    return {name: rows[name] for name in ("solution", "task", "metadata")}


def judged(columns, texts):
    return [score.correct for score in Judge().score(texts, **columns)]


def test_reasoning_gym_tasks_have_their_own_scorers():
    """Sudoku's gold is a board, time_intervals' a span, letters' order does not count."""
    for task in ("mini_sudoku", "time_intervals", "group_anagrams", "bitwise_arithmetic"):
        columns = gym(task)
        assert judged(columns, [tagged(gold) for gold in columns["solution"]]) == [1.0] * 3, task
        others = [*columns["solution"][1:], columns["solution"][0]]
        assert judged(columns, [tagged(gold) for gold in others]) == [0.0] * 3, task
        assert judged(columns, [tagged(""), "", "I do not know"]) == [0.0] * 3, task
    (groups, *_) = columns = gym("group_anagrams")["solution"]
    turned = json.dumps([group[::-1] for group in json.loads(groups)][::-1])
    assert judged({k: v[:1] for k, v in gym("group_anagrams").items()}, [tagged(turned)]) == [1.0]


def test_an_answer_is_never_run_as_code(tmp_path):
    """These scorers call `eval` or sympy's parser on the answer."""
    file = tmp_path / "touched"
    code = f"[open({str(file)!r}, 'w')]"
    for task in ("n_queens", "binary_matrix", "countdown", "puzzle24", "simple_integration"):
        columns = gym(task)
        assert judged(columns, [tagged(code)] * 3) == [0.0] * 3, task
        assert not file.exists(), task
    columns = gym("n_queens")
    listed = [str([row.split() for row in gold.splitlines()]) for gold in columns["solution"]]
    assert judged(columns, [tagged(board) for board in listed]).count(1.0) == 0  # partly right: 0.5


# Settings with which a problem of a slow task is quickly made.
QUICK = {"quantum_lock": {"difficulty": 1}, "knight_swap": {"max_nodes": 6, "seed": 1}}


def poisoned(value, code):
    """The value with everything in it hostile."""
    if isinstance(value, dict):
        return {name: poisoned(inner, code) for name, inner in value.items()}
    return [poisoned(inner, code) for inner in value] if isinstance(value, list) else code


def test_what_a_data_file_says_is_never_run_as_code(tmp_path):
    """Every task with hostile metadata, one entry of it after the other, then all of it and a
    hostile gold. The package's scorers call `eval` on a problem, and on golds.
    """
    gym = pytest.importorskip("reasoning_gym")
    from reasoning_gym.factory import DATASETS

    rows, codes = [], []
    # The last two want numbers, see above; the first has no problems of its own.
    for task in sorted(DATASETS.keys() - {"composite", "countdown", "puzzle24"}):
        code = f"[open({str(tmp_path / task)!r}, 'w')]"
        entry = gym.create_dataset(task, size=1, **{"seed": 0} | QUICK.get(task, {}))[0]
        metadata = json.loads(json.dumps(entry["metadata"], default=str))
        bad = poisoned(metadata, code)
        own = {"source_dataset": task}
        made = [(metadata | {name: bad[name]} | own, entry["answer"] or "none") for name in bad]
        for each, gold in [*made, (bad | own, code)]:
            rows.append({"task": task, "metadata": json.dumps(each), "solution": gold})
            codes.append(code)
    columns = {name: [row[name] for row in rows] for name in ("task", "metadata", "solution")}
    for texts in (codes, columns["solution"]):
        Judge().score([tagged(text) for text in texts], **columns)
    assert list(tmp_path.iterdir()) == []


def test_bitwise_arithmetic_is_held_against_its_gold():
    made = {"source_dataset": "bitwise_arithmetic", "problem": "0x1 + 0x1e"}
    row = {"task": "bitwise_arithmetic", "solution": "0x1f", "metadata": json.dumps(made)}
    texts = ["0x1F", "31", r"\boxed{0x1f}", "0b11111", "0x1e", "1f", "0x1 + 0x1e"]
    columns = {name: [value] * len(texts) for name, value in row.items()}
    assert judged(columns, [tagged(t) for t in texts]) == [1.0] * 4 + [0.0] * 3


def test_gym_countdown_wants_every_number():
    columns = gym("countdown")
    assert judged(columns, [tagged(gold) for gold in columns["solution"]]) == [1.0] * 3
    made = {"source_dataset": "countdown", "numbers": [8, 3, 5, 5], "target": 24}
    asked = {"solution": ["8*3+5-5"] * 3, "task": ["countdown"] * 3}
    texts = [tagged("8*3"), tagged("5*5-(8-3)/5"), tagged("8*3*(5-5+1)")]
    assert judged(asked | {"metadata": [json.dumps(made)] * 3}, texts) == [0.0] * 3
    assert (
        judged(asked | {"metadata": [json.dumps(made)] * 3}, [tagged("5-5+8*3")] * 3) == [1.0] * 3
    )
