"""Near-duplicates: the measure, and that the index finds what a search through all would."""

import random

import pytest

from align.evaluation.duplicates import Seen, band_rows, jaccard, shingles


def test_shingles_are_word_trigrams():
    assert shingles("Add 2 + 3.") == {"add 2 +", "2 + 3", "+ 3 ."}
    assert shingles("ADD  2\n+3 .") == shingles("Add 2 + 3.")
    assert shingles("５ Straße x") == shingles("5 strasse x")
    assert shingles("Yes.") == {"yes ."}
    assert shingles("") == {""}


def test_jaccard_is_shared_over_all():
    assert jaccard(frozenset("abcd"), frozenset("bcde")) == pytest.approx(3 / 5)
    assert jaccard(frozenset("ab"), frozenset("ab")) == 1
    assert jaccard(frozenset("ab"), frozenset("cd")) == 0


@pytest.mark.parametrize("threshold", [0.8, 0.95])
def test_the_index_finds_what_comparing_with_all_finds(threshold):
    """200 texts, most of them an earlier one with some words changed."""
    chance = random.Random(7)
    words = [f"w{i}" for i in range(500)]
    texts = [" ".join(chance.choices(words, k=120))]
    for _ in range(199):
        text = (
            chance.choice(texts).split() if chance.random() < 0.8 else chance.choices(words, k=90)
        )
        for _ in range(chance.randrange(12)):
            text[chance.randrange(len(text))] = chance.choice(words)
        texts.append(" ".join(text))
    index, kept, found = Seen(threshold), [], 0
    for text in texts:
        expected = all(jaccard(shingles(text), other) < threshold for other in kept)
        assert index.is_new("the same question", text) == expected
        if expected:
            kept.append(shingles(text))
        found += not expected
    assert 10 < found < 190


def test_one_text_answers_two_questions():
    seen = Seen(0.8)
    assert seen.is_new("Is 7 prime?", "Yes.")
    assert seen.is_new("Is 9 odd, and is it large?", "Yes.")
    assert not seen.is_new("is 7 prime ?", "yes .")


@pytest.mark.parametrize("threshold", [0.02, 0.1, 0.3, 0.5, 0.6, 0.7, 0.8, 0.95])
def test_pairs_just_above_any_threshold_are_found(threshold):
    """300 pairs, of which at most 0.0014 * 300 = 0.4 may be overlooked: 3 or more are too many."""
    chance, overlooked = random.Random(11), 0
    for _ in range(300):
        words = [f"w{chance.randrange(10**9)}" for _ in range(202)]
        part = " ".join(words[: 2 + round(200 * threshold)])  # 3-grams: so many of the 200
        alike = jaccard(shingles(" ".join(words)), shingles(part))
        assert threshold <= alike < threshold + 0.006
        seen = Seen(threshold)
        assert seen.is_new("", " ".join(words))
        overlooked += seen.is_new("", part)
    assert overlooked < 3


def test_hashes_a_band_follow_from_the_threshold():
    """(1 - threshold**rows)**(288 // rows) is at most 0.0014; with a row more it is not."""
    assert [band_rows(t) for t in (1.0, 0.8, 0.7, 0.6, 0.5, 0.3, 0.02)] == [8, 8, 5, 4, 3, 2, 0]
