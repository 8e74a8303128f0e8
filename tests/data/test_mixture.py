from dataclasses import dataclass

import pytest

from data import Arithmetic, DataError, Mixture
from data.rows import Source, dataset


@dataclass(frozen=True, kw_only=True)
class Letters:
    """A source of numbered rows."""

    name: str
    count: int

    def rows(self):
        return dataset(
            {"prompt": f"{self.name}{index}", self.name: index} for index in range(self.count)
        )


A, B, C = (Letters(name=name, count=100) for name in "abc")


def prompts(*shares, **fields):
    return Mixture(sources=shares, **fields).rows()["prompt"]


def test_it_is_a_source_like_any_other():
    assert isinstance(Mixture(sources=((1, A),)), Source)
    assert Mixture(sources=((1, A), (1, B))).name == "a+b"


def test_every_stretch_holds_the_shares():
    found = prompts((0.7, A), (0.2, B), (0.1, C), size=100)
    assert [sum(each.startswith(name) for each in found) for name in "abc"] == [70, 20, 10]
    for length in range(1, 101):
        for name, share in (("a", 0.7), ("b", 0.2), ("c", 0.1)):
            count = sum(each.startswith(name) for each in found[:length])
            assert abs(count - share * length) < 1


def test_shares_count_by_their_ratio():
    assert prompts((7, A), (3, B), size=50) == prompts((0.7, A), (0.3, B), size=50)


def test_rows_are_shuffled_by_the_seed_and_none_comes_twice():
    found = prompts((1, A), (1, B), size=100, seed=1)
    assert found == prompts((1, A), (1, B), size=100, seed=1)
    assert found != prompts((1, A), (1, B), size=100, seed=2)
    assert len(set(found)) == 100
    assert prompts((1, A), size=100, seed=None) == [f"a{index}" for index in range(100)]


def test_without_a_size_it_ends_where_a_source_runs_out():
    found = prompts((3, A), (1, B), seed=None)
    assert sum(each.startswith("a") for each in found) == 100
    assert len(found) in (133, 134)


def test_a_source_that_runs_out_is_an_error_or_starts_again_in_a_new_order():
    with pytest.raises(DataError, match="a has 100 rows, used up after 100 of 101"):
        prompts((1, A), size=101)
    found = prompts((1, A), size=200, repeat=True)
    assert sorted(found[:100]) == sorted(found[100:])
    assert found[:100] != found[100:]


def test_columns_are_united_with_nulls_and_the_kind_names_the_source():
    rows = Mixture(sources=((1, A), (1, B)), size=4, seed=None, origin="origin").rows()
    assert rows["a"] == [0, None, 1, None]
    assert rows["b"] == [None, 0, None, 1]
    assert rows["origin"] == ["a", "b", "a", "b"]
    assert "origin" not in Mixture(sources=((1, A),), size=1).rows().column_names


def test_chat_and_plain_prompts_do_not_mix():
    mixture = Mixture(sources=((1, Arithmetic(size=2)), (1, A)), size=2)
    with pytest.raises(DataError, match="same style="):
        mixture.rows()


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"sources": ()}, "at least one"),
        ({"sources": ((0, A),)}, "share of a is 0"),
        ({"sources": ((float("nan"), A),)}, "share of a is nan"),
        ({"sources": ((1, A),), "size": 0}, "size=0"),
        ({"sources": ((1, A),), "repeat": True}, "never ends"),
    ],
)
def test_mixtures_that_make_no_sense_are_refused_at_once(fields, said):
    with pytest.raises(DataError, match=said):
        Mixture(**fields)
