"""Rewards that break the protocol or attack their process: a clear error, and the run's process
lives on, alone, with its standard output as it was.
"""

import faulthandler
import math
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import hostile_functions as hostile
import numpy as np
import pytest
import torch

import rewards
from align.stages.rolled import RewardError, judged
from data import reward_scores
from data.reward_scores import RewardCheckError
from rewards import adapters, containment, functions

ROWS = [{"prompt": "q"}] * 2


def judge(reward, texts=("a", "b")):
    made = reward if isinstance(reward, rewards.Reward) else rewards.from_trl(reward)
    return judged(made, list(texts), [[0]] * len(texts), ROWS[: len(texts)], [])


def elsewhere(work):
    """The exit code of a process that does the work: for what may end it, or come back twice."""
    pid = os.fork()
    if not pid:
        code = 1
        try:
            work()
            code = 0
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def giving(made):
    def given(completions, **_):
        return made

    return given


@pytest.mark.parametrize("name", hostile.BAD_VALUES)
def test_what_is_no_finite_number_is_refused(name):
    value, said = hostile.BAD_VALUES[name]
    with pytest.raises(RewardError, match=f"the reward given raised .*{said}"):
        judge(giving([1.0, value]))
    with pytest.raises((TypeError, ValueError), match=said):  # as TRL would call it
        rewards.from_trl(giving([1.0, value]))(["a", "b"])


def test_numbers_of_every_make_are_floats():
    made = [True, 2, np.float32(0.5), torch.tensor(0.25), np.int64(3), None]
    reward = rewards.from_trl(giving(made))
    scores = judged(reward, ["a"] * 6, [[0]] * 6, ROWS[:1] * 6, [])
    assert [score.value for score in scores] == [1.0, 2.0, 0.5, 0.25, 3.0, None]
    assert {type(score.value) for score in scores} == {float, type(None)}


@pytest.mark.parametrize(
    ("made", "said"),
    [
        ([1.0], "returned 1 values for 2 completions"),
        ([1.0, 1.0, 1.0], "returned more than 2 values for 2 completions"),
        ([], "returned 0 values for 2 completions"),
        (1.0, "must return a list, not float"),
        (None, "must return a list, not NoneType"),
        ("ab", "must return a list, not str"),
        ({"a": 1.0, "b": 2.0}, "must return a list, not dict"),
        ({1.0, 2.0}, "must return a list, not set"),
    ],
)
def test_a_wrong_number_of_rewards_is_refused(made, said):
    with pytest.raises(RewardError, match=said):
        judge(giving(made))


def test_an_endless_generator_is_refused_and_not_read_to_its_end():
    with pytest.raises(RewardError, match="returned more than 2 values"):
        judge(hostile.endless)


class Given(rewards.Reward):
    """A reward of one's own that gives whatever it was made with."""

    name = "given"

    def __init__(self, made):
        self.made = made

    def score(self, completions, **_):
        return self.made


SCORE = rewards.Score(value=1.0)


@pytest.mark.parametrize(
    ("made", "said"),
    [
        ([rewards.Score(value=math.nan), SCORE], "gave nan for the completion 'a'"),
        ([SCORE, rewards.Score(value=-math.inf)], "gave -inf for the completion 'b'"),
        ([rewards.Score(value="1"), SCORE], "gave str '1'"),
        ([rewards.Score(value=torch.tensor(1.0)), SCORE], "gave Tensor"),
        ([rewards.Score(value=1.0, correct=math.nan), SCORE], "gave nan"),
        ([rewards.Score(value=1.0, parts={"x": math.inf}), SCORE], "gave inf"),
        ([rewards.Score(value=1.0, parts=None), SCORE], "not a rewards.Score with its parts"),
        ([1.0, 1.0], "gave 1.0, not a rewards.Score"),
        ([SCORE], "gave 1 scores for 2 completions"),
        (None, "gave NoneType None, not a list of scores"),
    ],
)
def test_scores_of_a_reward_of_ones_own_are_held_to_the_same(made, said):
    with pytest.raises(RewardError, match=said):
        judge(Given(made))
    with pytest.raises(ValueError, match=said):
        Given(made)(["a", "b"])
    if made and made[-1] is SCORE:
        with pytest.raises(ValueError, match=said):
            adapters.to_openrlhf(Given(made))(["a", "b"], ["", ""], ["", ""])


def test_a_sum_that_overflows_and_a_weight_that_is_no_number_are_refused():
    with pytest.raises(RewardError, match=r"gave 3e\+39"):
        judge(rewards.WeightedSum(((10.0, giving([3e38, 0.0])),)))
    with pytest.raises(ValueError, match="weight nan"):
        rewards.WeightedSum(((math.nan, giving([])),))


def test_values_of_a_function_under_limits_are_finite_too():
    for value, said in ((math.nan, "returned nan"), (-math.inf, "returned -inf")):
        with pytest.raises(RewardError, match=said):
            judge(rewards.PerSample(fn=lambda text, value=value: value))
    with pytest.raises(RewardError, match="not str"):
        judge(rewards.PerSample(fn=lambda text: "1"))


def test_a_parameter_of_a_function_under_limits_that_is_no_column_is_named():
    with pytest.raises(RewardError, match="has a parameter 'gold', which is no column; columns"):
        judge(rewards.PerSample(fn=lambda text, gold: 1.0))
    scores = judge(rewards.PerSample(fn=lambda text, gold=1: gold))
    assert [score.value for score in scores] == [1.0, 1.0]


@pytest.mark.parametrize(
    ("fn", "said"),
    [
        (giving([0.1, 5.0, 7.0]), "returned more than 1 values for 1 completions"),
        (hostile.two_later, "returned more than 1 values for 1 completions"),
        (hostile.endless, "returned more than 1 values for 1 completions"),
        (giving([]), "returned 0 values for 1 completions"),
        (giving({0: 3.0}), "must return a list, not dict"),
        (giving("9"), "must return a list, not str"),
        (giving(3.0), "must return a list, not float"),
        (giving([{"a": 1.0}]), "must return a number or None, not dict"),
    ],
)
def test_a_wrong_number_of_rewards_under_limits_is_refused_too(fn, said):
    with pytest.raises(RewardError, match=said):
        judge(rewards.from_trl(fn, seconds=20))


def test_what_a_reward_raises_is_named_with_it():
    said = r"the reward raises raised KeyError\('no such thing'\) at .*hostile_functions\.py, line "
    with pytest.raises(RewardError, match=rf'{said}\d+: raise KeyError\("no such thing"\)$'):
        judge(hostile.raises)


def test_what_a_reward_prints_is_kept_out_of_the_output(capsys):
    assert [score.value for score in judge(hostile.prints)] == [1.0, 1.0]
    said = capsys.readouterr()
    assert said.out == "" and said.err == "HELLO\n"


@pytest.mark.parametrize("name", ["forks", "forks_and_raises"])
def test_the_second_process_of_a_reward_that_forks_ends_there(name, tmp_path):
    file = tmp_path / "lived"

    def judged_by_it():
        scores = judge(getattr(hostile, name))
        with file.open("a") as lived:  # by every process that came back
            lived.write("x")
        assert [score.value for score in scores] == [1.0, 1.0]

    assert elsewhere(judged_by_it) == 0
    assert file.read_text() == "x"


def test_a_child_of_a_reward_may_end_as_it_will():
    assert [score.value for score in judge(hostile.child_leaves)] == [7.0, 7.0]


@pytest.mark.parametrize("name", ["exits", "leaves"])
def test_a_reward_that_ends_the_process_does_not(name):
    def judged_by_it():
        with pytest.raises(RewardError, match=rf"the reward {name} ended the process \(exit 3\)"):
            judge(getattr(hostile, name))

    assert elsewhere(judged_by_it) == 0


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("digs", r"RecursionError\('maximum recursion"),
        ("takes_all_at_once", r"MemoryError\(\)"),
        ("cancelled", r"CancelledError\(\)"),
        ("panics", r"Panic\('at the disco'\)"),
        ("raises_without_words", "Mute, which cannot be printed"),
        ("raises_at_length", r"ValueError\('x{200,300}… at .*, line "),
    ],
)
def test_whatever_a_reward_raises_is_its_own_in_a_line(name, said):
    with pytest.raises(RewardError, match=rf"^the reward {name} raised {said}"):
        judge(getattr(hostile, name))
    with pytest.raises(RewardCheckError, match=rf"the reward {name} raised "):
        reward_scores.scores(getattr(hostile, name), ROWS, ["a", "b"])


def test_a_reward_cannot_close_what_the_run_has_still_to_say():
    def judged_and_said():
        assert [score.value for score in judge(hostile.closes_its_output)] == [1.0, 1.0]
        print("on", file=sys.stderr, flush=True)

    assert elsewhere(judged_and_said) == 0


def test_a_reward_that_changes_the_folder_changes_it_for_itself(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    judge(hostile.goes_elsewhere)
    assert Path.cwd() == tmp_path


def test_a_reward_that_seeds_and_sets_torch_does_it_for_itself():
    torch.manual_seed(0)
    drawn = torch.rand(3)
    torch.manual_seed(0)
    try:
        judge(hostile.seeds)
        assert torch.equal(torch.rand(3), drawn)
        assert torch.is_grad_enabled() and torch.get_default_dtype() == torch.float32
    finally:
        torch.set_grad_enabled(True)
        torch.set_default_dtype(torch.float32)


def test_a_reward_that_empties_its_lists_empties_nobody_elses():
    both = rewards.WeightedSum(((1.0, hostile.empties), (1.0, rewards.Accuracy())))
    given = {"solution": ["1", "2"]}
    scores = both.score(["#### 1", "#### 1"], **given)
    assert [score.value for score in scores] == [2.0, 1.0]
    assert given == {"solution": ["1", "2"]}


@pytest.mark.parametrize("name", ["sleeps", "sleeps_stubbornly", "sleeps_in_a_coroutine"])
def test_a_reward_that_sleeps_is_given_up(name, monkeypatch):
    monkeypatch.setattr(containment, "EACH", 0.0)
    handler = signal.getsignal(containment._SIGNAL)
    begun = time.perf_counter()
    reward = rewards.from_trl(getattr(hostile, name), patience=0.5)
    with pytest.raises(
        RewardError, match=f"the reward {name} has not answered for 0.5 s.*seconds=5"
    ):
        judge(reward)
    assert time.perf_counter() - begun < 20
    assert signal.getsignal(containment._SIGNAL) is handler


def test_every_completion_adds_to_the_patience_and_parts_to_that_of_a_sum():
    plain = functions.BatchFunction(fn=hostile.prints)
    assert plain.patience == 60.0
    assert rewards.WeightedSum(((1.0, hostile.prints), (1.0, rewards.Format()))).patience == 660.0
    reward = rewards.from_trl(lambda completions, **_: time.sleep(1.2) or [1.0, 1.0], patience=0.2)
    assert len(judge(reward)) == 2  # 0.2 + 5 s


HELD = """
import sys
sys.path[:0] = sys.argv[1:]
import hostile_functions, rewards
from rewards import containment
containment.GRACE = 0.5
with rewards.contained(patience=0.5, completions=1):
    rewards.from_trl(hostile_functions.holds_the_lock)(["a"])
"""


@pytest.mark.parametrize("name", ["searches", "reckons"])
def test_a_reward_that_holds_the_interpreter_and_looks_for_signals_is_given_up(name):
    begun = time.perf_counter()
    with pytest.raises(RewardError, match=f"the reward {name} has not answered for 0.5 s"):
        judge(rewards.from_trl(getattr(hostile, name), patience=0.5), texts=["a"])
    assert time.perf_counter() - begun < 10
    assert signal.getitimer(signal.ITIMER_VIRTUAL) == (0.0, 0.0)


def test_a_reward_that_holds_the_interpreter_ends_the_run_and_says_where():
    paths = [str(Path(__file__).parent), str(Path(rewards.__file__).parent.parent)]
    done = subprocess.run(
        [sys.executable, "-c", HELD, *paths], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 1
    assert "Timeout" in done.stderr and "in holds_the_lock" in done.stderr


def test_a_reward_that_eats_memory_is_given_up(monkeypatch):
    monkeypatch.setattr(containment, "TAKEN", 20 << 20)
    monkeypatch.setattr(containment, "LEAST_FREE", 1.1)  # as if the machine had none left
    try:
        with pytest.raises(RewardError, match=r"the reward eats has taken 0\.\d GiB"):
            judge(hostile.eats)
        assert len(hostile.HELD) < 400
    finally:
        hostile.HELD.clear()


def test_nothing_is_left_of_a_good_call():
    leave, stdout = os._exit, sys.stdout
    handler = signal.signal(containment._SIGNAL, signal.SIG_IGN)
    try:
        judge(giving([1.0, 0.0]))
        assert os._exit is leave and sys.stdout is stdout
        assert signal.getsignal(containment._SIGNAL) is signal.SIG_IGN
    finally:
        signal.signal(containment._SIGNAL, handler)
    faulthandler.dump_traceback_later(1000)  # the timer is free again
    faulthandler.cancel_dump_traceback_later()
