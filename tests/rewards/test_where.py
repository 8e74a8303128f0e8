"""A gate: the reward it holds sees the rows it applies to and no others."""

import dataclasses

import pytest

import rewards
from rewards import Accuracy, Format, Reward, Score, WeightedSum, Where

KINDS = ["math", "general", None, "math"]
TEXTS = ["#### 4", "hello", "4", "#### 5"]
GOLDS = ["4", None, "4", "4"]


@dataclasses.dataclass(frozen=True)
class Seen(Reward):
    """Notes what it is called with; a part of another name than its own."""

    name = "seen"
    calls: list = dataclasses.field(default_factory=list)

    def part_names(self):
        return ("looks",)

    def score(self, completions, **columns):
        self.calls.append((list(completions), columns))
        return [Score(value=1.0, parts={"looks": 1.0}) for _ in completions]


def test_none_where_it_does_not_apply() -> None:
    gate = Where(reward=Accuracy(), equals=("math",))
    assert gate(TEXTS, kind=KINDS, solution=GOLDS) == [1.0, None, None, 0.0]
    scores = gate.score(TEXTS, kind=KINDS, solution=GOLDS)
    assert [score.correct for score in scores] == [1.0, None, None, 0.0]
    assert [score.parts for score in scores] == [
        {"accuracy": value} for value in (1.0, None, None, 0.0)
    ]
    assert {score.outcome for score in scores} == {"ok"}


def test_the_inner_reward_gets_its_rows_alone_with_every_column_cut() -> None:
    inner = Seen()
    gate = Where(reward=inner, column="source", equals=("a", "b"))
    state = object()
    scores = gate.score(
        ["w", "x", "y", "z"],
        source=["b", "c", "a", None],
        prompts=("pw", "px", "py", "pz"),
        completion_ids=[[1], [2], [3], [4]],
        trainer_state=state,
        pair=["not", "a column"],
    )
    ((completions, columns),) = inner.calls
    assert completions == ["w", "y"]
    assert columns == {
        "source": ["b", "a"],
        "prompts": ["pw", "py"],
        "completion_ids": [[1], [3]],
        "trainer_state": state,
        "pair": ["not", "a column"],
    }
    assert [score.value for score in scores] == [1.0, None, 1.0, None]
    assert [score.parts for score in scores] == [{"looks": v} for v in (1.0, None, 1.0, None)]


def test_the_inner_reward_is_not_called_with_nothing() -> None:
    inner = Seen()
    assert Where(reward=inner, equals=("math",))(["a"], kind=["general"]) == [None]
    assert inner.calls == []


def test_null_may_be_one_of_the_values() -> None:
    gate = Where(reward=Format(), equals=(None, "x"))
    assert gate(["a", "b", "c"], kind=[None, "x", "y"]) == [0.0, 0.0, None]


def test_name_and_part_are_the_inner_rewards() -> None:
    gate = Where(reward=Format(), equals=("x",))
    assert (gate.name, gate.__name__, gate.part_names()) == ("format", "format", ("format",))


def test_gates_in_a_sum_and_sums_in_a_gate() -> None:
    mixed = WeightedSum(
        (
            (1.0, Where(reward=Accuracy(), equals=("math",))),
            (0.5, Where(reward=WeightedSum(((2.0, Format()), (1.0, Seen()))), equals=("general",))),
        )
    )
    assert mixed.part_names() == ("accuracy", "format", "looks")
    scores = mixed.score(TEXTS, kind=KINDS, solution=GOLDS)
    assert [score.value for score in scores] == [1.0, 0.5, None, 0.0]
    assert [score.correct for score in scores] == [1.0, None, None, 0.0]
    assert [list(score.parts) for score in scores] == [["accuracy", "format", "looks"]] * 4
    assert scores[1].parts == {"accuracy": None, "format": 0.0, "looks": 1.0}


def test_two_gates_around_one_reward_keep_their_parts_apart() -> None:
    mixed = WeightedSum([(1.0, Where(reward=Seen(), equals=(kind,))) for kind in ("a", "b")])
    scores = mixed.score(["x", "y"], kind=["a", "b"])
    assert [score.parts for score in scores] == [
        {"looks": 1.0, "looks_2": None},
        {"looks": None, "looks_2": 1.0},
    ]
    assert mixed.part_names() == ("looks", "looks_2")


def test_a_plain_function_may_stand_in_a_gate() -> None:
    def shouting(completions, **columns):
        return [float(text.isupper()) for text in completions]

    gate = Where(reward=shouting, equals=("x",))
    assert gate(["YES", "no", "YES"], kind=["x", "x", "y"]) == [1.0, 0.0, None]
    assert gate.name == "shouting"


def test_what_is_needed_in_a_row() -> None:
    """The gold answer, where something that reads it applies."""
    gated = Where(reward=Accuracy(), equals=("math",))
    mixed = WeightedSum(((1.0, gated), (1.0, Format())))
    for reward in (gated, mixed, Where(reward=mixed, column="on", equals=(1,))):
        assert reward.needed({"kind": "math", "on": 1}) == {"solution"}
        assert reward.needed({"kind": "general", "on": 1}) == set()
        assert reward.needed({}) == set()
    assert Where(reward=mixed, column="on", equals=(1,)).needed({"kind": "math", "on": 0}) == set()
    assert WeightedSum(((1.0, gated), (0.1, rewards.Cosine()))).needed({}) == {"solution"}
    assert Format().needed({}) == set()


def test_functions_need_what_they_name() -> None:
    def judges(completions, solution, **columns):
        return [0.0] * len(completions)

    assert rewards.from_trl(judges).needed({}) == {"solution"}
    assert rewards.from_trl(lambda completions, **columns: []).needed({}) == set()


def test_the_same_gate_around_another_reward() -> None:
    gate = Where(reward=Accuracy(), column="source", equals=["a"])
    assert gate.inner == (Accuracy(),)
    assert gate.with_inner([Format()]) == Where(reward=Format(), column="source", equals=("a",))
    mixed = WeightedSum(((1.0, gate), (0.5, Format())))
    assert mixed.with_inner(mixed.inner[::-1]).terms == ((1.0, Format()), (0.5, gate))


def test_kind_errors() -> None:
    with pytest.raises(TypeError, match=r"equals='math' must be a tuple of values: \('math',\)"):
        Where(reward=Accuracy(), equals="math")
    with pytest.raises(ValueError, match="name the values"):
        Where(reward=Accuracy(), equals=())
    with pytest.raises(TypeError, match="a TRL reward is a function"):
        Where(reward="accuracy", equals=("math",))
    with pytest.raises(ValueError, match=r"'accuracy where kind' needs the column 'kind'"):
        Where(reward=Accuracy(), equals=("math",))(["4"], solution=["4"])
