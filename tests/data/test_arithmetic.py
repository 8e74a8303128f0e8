import re

import pytest

from data import Arithmetic, DataError

OPERATIONS = {"+": int.__add__, "-": int.__sub__, "*": int.__mul__, "/": int.__floordiv__}


def expression(row):
    return re.fullmatch(r"Compute (.*)\.", row["prompt"][-1]["content"])[1]


def value_of(text):
    """Independent of the generator's parser: rewrites text, brackets first, * / before + -."""
    while inner := re.search(r"\(([^()]*)\)", text):
        text = text.replace(inner[0], str(value_of(inner[1])), 1)
    for signs in ("*/", "+-"):
        while found := re.search(rf"(-?\d+) ([{signs}]) (-?\d+)", text):
            result = OPERATIONS[found[2]](int(found[1]), int(found[3]))
            text = text[: found.start()] + str(result) + text[found.end() :]
    return int(text)


def expressions(**fields):
    return [expression(row) for row in Arithmetic(**fields).rows()]


def test_rows_have_the_documented_form():
    row = Arithmetic(size=1).rows()[0]
    assert set(row) == {"prompt", "completion", "solution"}
    assert [each["role"] for each in row["prompt"]] == ["user"]
    assert [each["role"] for each in row["completion"]] == ["assistant"]
    assert row["completion"][0]["content"].endswith(f"</think>\n<answer>{row['solution']}</answer>")


def test_solutions_are_right_and_every_line_of_the_work_holds():
    settings = {"symbols": "+-*/", "operators": 3, "min_operators": 1, "parentheses": True}
    for row in Arithmetic(size=300, seed=5, **settings).rows():
        text = expression(row)
        assert re.fullmatch(r"[\d+\-*/() ]+", text)
        assert value_of(text) == int(row["solution"])
        thinking = re.match(r"<think>(.*)</think>", row["completion"][0]["content"], re.DOTALL)[1]
        lines = thinking.split("\n")
        for line in lines:
            left, sign, right, equals, value = line.split()
            assert equals == "="
            assert OPERATIONS[sign](int(left), int(right)) == int(value)
            assert sign != "/" or int(left) % int(right) == 0
        assert len(lines) == sum(text.count(f" {sign} ") for sign in "+-*/")


def test_the_same_fields_give_the_same_rows_and_a_seed_changes_them():
    assert expressions(size=50, seed=3) == expressions(size=50, seed=3)
    assert expressions(size=50, seed=3) != expressions(size=50, seed=4)
    assert expressions(size=20, seed=3) == expressions(size=50, seed=3)[:20]


@pytest.mark.parametrize(
    "fields", [{}, {"operators": 1, "max_number": 60}, {"parentheses": True, "max_number": 9}]
)
def test_train_and_test_are_disjoint_for_all_seeds_up_to_order(fields):
    def kin(split):
        found = set()
        for seed in (0, 1, 2):
            for text in expressions(split=split, size=150, seed=seed, **fields):
                found.add(tuple(sorted(re.findall(r"\d+|[-+*/]", text))))
        return found

    train, test = kin("train"), kin("test")
    assert train and test
    assert not train & test


def test_no_problem_occurs_twice_in_a_split():
    found = expressions(size=2000, operators=1, max_number=60)
    assert len(set(found)) == len(found) == 2000


def test_settings_bound_the_problems():
    fields = {"max_number": 20, "max_factor": 5, "max_value": 40, "operators": 3, "size": 200}
    for text in expressions(min_operators=2, **fields):
        assert 2 <= len(re.findall(r" [-+*] ", text)) <= 3
        assert all(int(each) <= 20 for each in re.findall(r"\d+", text))
        factors = re.findall(r"(\d+) \*", text) + re.findall(r"\* (\d+)", text)
        assert factors and all(2 <= int(each) <= 5 for each in factors)
        assert re.search(r"[-+]", text), "precedence mixes * with + or -"
    for row in Arithmetic(**fields).rows():
        values = re.findall(r"= (-?\d+)", row["completion"][0]["content"])
        assert all(0 <= int(value) <= 40 for value in values)


def test_options_widen_the_problems():
    def solutions(**fields):
        return [int(each) for each in Arithmetic(size=200, **fields).rows()["solution"]]

    assert min(solutions()) >= 0
    assert min(solutions(negatives=True)) < 0
    assert any("(" in text for text in expressions(size=20, parentheses=True))
    assert not any("(" in text for text in expressions(size=200))
    plain = expressions(size=200, precedence=False)
    assert any("*" not in text for text in plain)


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"split": "valid"}, "train and test"),
        ({"size": 0}, "size"),
        ({"operators": 1, "min_operators": 2}, "min_operators"),
        ({"symbols": "^"}, "symbols"),
        ({"max_number": 1}, "max_number"),
        ({"style": "r2"}, "style"),
    ],
)
def test_settings_that_make_no_sense_are_refused_at_once(fields, said):
    with pytest.raises(DataError, match=said):
        Arithmetic(**fields)


def test_asking_for_more_problems_than_exist_says_how_many_there_are():
    with pytest.raises(DataError, match=r"only \d+ of 5000 train problems"):
        Arithmetic(size=5000, operators=1, max_number=5).rows()
