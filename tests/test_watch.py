"""The watch: each rule on rows made for it, silence on good ones, episodes, and resumes."""

import json
import math

import pytest

from align.training.watch import SHORT, TRY, WINDOW, Watch

STEPS = 4 * WINDOW


def row(step, **more):
    """A step of a healthy run: noisy, all well."""
    noise = math.sin(7.0 * step)
    figures = {
        "reward": 0.6 + 0.05 * noise,
        "reward/format": 0.8 + 0.02 * noise,
        "accuracy": 0.4 + 0.05 * noise,
        "length": 40 + 3 * noise,
        "truncated": 0.02,
        "dead_groups": 0.4,
        "most_common": 0.1,
        "entropy": 1.0 + 0.1 * noise,
    }
    figures = {name: value for name, value in (figures | more).items() if value is not None}
    return {"step": step, "steps": STEPS, "time": 1.0} | figures


def run(**courses):
    """Rows of `STEPS` steps; a course gives a figure by the share of the run gone by."""
    return [
        row(step, **{name: course((step - 1) / (STEPS - 1)) for name, course in courses.items()})
        for step in range(1, STEPS + 1)
    ]


def warnings(rows):
    watch = Watch()
    return [found for each in rows for found in watch.see(each)]


def rules(rows):
    return [found["rule"] for found in warnings(rows)]


def rising(low, high):
    return lambda gone: low + (high - low) * gone


HEALTHY = {
    "as it is": {},
    "all learnt": {
        "accuracy": rising(0.2, 0.9),
        "reward": rising(0.5, 1.4),
        "reward/format": rising(0.7, 1.0),
        "dead_groups": rising(0.3, 0.9),
        "entropy": rising(0.17, 0.03),
    },
    "longer and better": {"accuracy": rising(0.2, 0.6), "length": rising(50, 200)},
    "cut from the start": {"truncated": rising(0.4, 0.9), "accuracy": lambda gone: None},
    "a reward falls with correctness": {
        "accuracy": rising(0.5, 0.3),
        "reward": rising(0.9, 0.7),
        "reward/format": lambda gone: 0.9,
    },
    "a small fall": {"accuracy": rising(0.50, 0.47), "reward/format": rising(0.3, 0.9)},
    "a small rise": {"accuracy": rising(0.5, 0.2), "reward/format": rising(0.97, 1.0),
                     "reward": rising(0.9, 0.7)},
    "no judge of correctness": {"accuracy": lambda gone: None, "reward": rising(-1, 3)},
    "entropy not measured": {"entropy": lambda gone: None},
    "dead now and then": {"dead_groups": lambda gone: 1.0 if int(gone * 23) % 3 else 0.9},
    "one text half the time": {"most_common": lambda gone: 0.5},
}  # fmt: skip


@pytest.mark.parametrize("courses", HEALTHY.values(), ids=HEALTHY)
def test_nothing_is_said_of_a_healthy_run(courses):
    assert warnings(run(**courses)) == []


HACKED = {
    "a part rises": (
        {"accuracy": rising(0.5, 0.2), "reward/format": rising(0.3, 0.9)},
        "shaped-reward",
        {"reward/format", "reward/format/before", "accuracy", "accuracy/before"},
    ),
    "the whole rises": (
        {"accuracy": rising(0.5, 0.2), "reward": rising(0.5, 2.0)},
        "shaped-reward",
        {"reward", "reward/before", "accuracy", "accuracy/before"},
    ),
    "longer and no better": (
        {"length": rising(50, 200)},
        "length",
        {"length", "length/before", "accuracy", "accuracy/before"},
    ),
    "longer, none can say whether better": (
        {"length": rising(50, 200), "accuracy": lambda gone: None},
        "length",
        {"length", "length/before"},
    ),
    "into the limit": (
        {"truncated": rising(0.02, 0.6), "accuracy": rising(0.2, 0.6)},
        "length",
        {"truncated", "truncated/before", "length", "length/before"},
    ),
    "one text": ({"most_common": rising(0.1, 0.9)}, "same-answer", {"most_common"}),
    "entropy": ({"entropy": lambda gone: math.exp(-6 * gone)}, "entropy",
                {"entropy", "entropy/before"}),
    "all dead": ({"dead_groups": lambda gone: 1.0 if gone > 0.5 else 0.5}, "dead-groups",
                 {"dead_groups", "accuracy"}),
}  # fmt: skip


@pytest.mark.parametrize(("courses", "rule", "figures"), HACKED.values(), ids=HACKED)
def test_what_goes_wrong_is_said_once_with_its_figures(courses, rule, figures):
    (found,) = warnings(run(**courses))
    assert found["rule"] == rule
    assert set(found["figures"]) == figures
    assert 1 < found["step"] <= STEPS
    assert TRY[rule] in found["message"]
    assert json.loads(json.dumps(found)) == found


def test_the_message_names_the_part_and_both_means():
    (found,) = warnings(run(**HACKED["a part rises"][0]))
    before, after = (found["figures"][f"accuracy{end}"] for end in ("/before", ""))
    assert before > after
    assert f"correctness fell from {before:.3g} to {after:.3g}" in found["message"]
    assert "the reward's part format rose" in found["message"]


def test_correctness_is_compared_with_where_it_was_best():
    """Up first, then down to where it began: against the first steps there is no fall."""
    hill = run(
        accuracy=lambda gone: 0.3 + 0.4 * math.sin(math.pi * gone),
        **{"reward/format": rising(0.3, 0.9)},
    )
    assert rules(hill) == ["shaped-reward"]


def test_a_figure_missing_from_some_steps_is_compared_over_the_others():
    """A part that applies to some prompts only, in a step without any of them."""
    rows = run(**HACKED["a part rises"][0])
    for each in rows[::3]:
        del each["reward/format"]
    assert rules(rows) == ["shaped-reward"]


def test_noise_alone_is_no_finding():
    """The same means as in a hacked run, and a spread that hides them."""
    rows = [
        row(
            step,
            accuracy=0.45 - 0.06 * (step > STEPS / 2) + (0.3 if step % 2 else -0.3),
            **{"reward/format": 0.5 + 0.06 * (step > STEPS / 2) + (0.3 if step % 2 else -0.3)},
        )
        for step in range(1, STEPS + 1)
    ]
    assert warnings(rows) == []


def test_an_episode_is_said_again_once_it_was_over():
    dead = [1.0] * 5 + [0.5] * (WINDOW + 1) + [1.0] * SHORT
    rows = [row(step, dead_groups=share) for step, share in enumerate(dead, 1)]
    assert [found["step"] for found in warnings(rows)] == [SHORT, len(dead)]
    short = [1.0] * 5 + [0.5] * 2 + [1.0] * SHORT
    rows = [row(step, dead_groups=share) for step, share in enumerate(short, 1)]
    assert [found["step"] for found in warnings(rows)] == [SHORT]


def test_an_entropy_that_is_not_measured_in_dead_steps_is_one_episode():
    rows = run(entropy=lambda gone: math.exp(-6 * gone))
    for each in rows[-10:-1]:
        del each["entropy"]
    more = [row(STEPS + i, entropy=0.001 if i % 3 == 0 else None) for i in range(1, 30)]
    assert rules(rows + more) == ["entropy"]


def test_steps_that_sample_nothing_are_passed_over():
    """Entropy falls in every good SFT."""
    rows = [
        {"step": step, "loss": 1.0, "entropy": math.exp(-step), "length": 2.0**step}
        for step in range(1, 40)
    ]
    watch = Watch()
    assert [watch.see(each) for each in rows] == [[]] * len(rows)
    assert watch.rows == []


def test_a_watch_that_read_the_rows_back_says_what_one_that_saw_them_says():
    rows = [
        each | {"step": i}
        for i, each in enumerate(run(**HACKED["a part rises"][0]) + run(**HACKED["all dead"][0]), 1)
    ]
    whole = warnings(rows)
    assert {found["rule"] for found in whole} == {"shaped-reward", "dead-groups"}
    for cut in range(len(rows) + 1):
        watch = Watch()
        watch.replay(json.loads(json.dumps(each)) for each in rows[:cut])
        later = [found for each in rows[cut:] for found in watch.see(each)]
        assert later == [found for found in whole if found["step"] > cut]
