"""The bench's arithmetic: ratios only where both sides did the same work, TRL at its fastest."""

import time

import pytest

from align.bench import show
from align.bench.case import Case, Settings
from align.bench.configs import step_config
from align.bench.measure import Pair, measured, ratios, summary
from align.bench.plan import settings_of
from align.bench.same import difference
from align.training import meter
from align.training.meter import Meter


def case(kind="update", **changes):
    return Case(kind=kind, name=kind, model="m", scratch="s", **changes)


def sides(**changes):
    same = {"losses": [1.0, 0.5], "norms": [2.0, 3.0]}
    return {"ours": same | changes, "trl": same, "distance": 0.0}


def test_other_work_is_told():
    assert difference(sides(), 1e-5) == ""
    assert "losses of step 2" in difference(sides(losses=[1.0, 0.6]), 1e-5)
    assert "norms of step 1" in difference(sides(norms=[2.1, 3.0]), 1e-5)
    assert "1 losses against 2" in difference(sides(losses=[1.0]), 1e-5)
    assert "norms of step 1" in difference(sides(norms=[float("nan"), 3.0]), 1e-5)
    assert "gradients" in difference(sides() | {"distance": 1e-3}, 1e-5)
    # A small loss is held to itself: 0.055 is not 0.05.
    small = {"ours": {"losses": [0.055], "norms": []}, "trl": {"losses": [0.05], "norms": []}}
    assert "losses of step 1" in difference(small, 1e-2)


MEMORY = {"peak_mib": 1.0, "above_mib": 1.0, "peak_since": "begin", "waited": 0.0}


class Scripted:
    """A worker whose answers are written down."""

    def __init__(self, **answer):
        self.answer = answer
        self.orders = []

    def ask(self, do, **values):
        self.orders.append(do)
        return self.answer if do == "go" else {}


def test_there_is_no_ratio_for_other_work():
    ours = Scripted(seconds=1.0, losses=[1.0], norms=[1.0], **MEMORY)
    theirs = Scripted(seconds=2.0, losses=[1.0], norms=[1.0], **MEMORY)
    options = {"settings": [Settings()], "fastest": True, "alternations": 3, "check": False}
    pair = Pair(ours, theirs, tick=lambda text: None)
    assert measured(pair, case(), **options)["ratio"] == 2.0
    theirs.answer["norms"] = [1.2]
    found = measured(pair, case(), **options)
    assert "ratio" not in found and "norms" in found["differs"]
    assert ours.orders == 2 * ["open", "go", "go", "go", "go", "close"]


class Counting(Scripted):
    """Answers with the next of a list, the last again and again."""

    def __init__(self, answers, **same):
        super().__init__()
        self.answers = [one | same for one in answers]

    def ask(self, do, **values):
        if do == "go":
            self.answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        return super().ask(do, **values)


def test_every_alternation_is_compared():
    """The third go is the second alternation: the first is thrown away."""
    same = {"seconds": 1.0, "losses": [1.0], **MEMORY}
    ours = Counting([{"norms": [1.0]}, {"norms": [1.0]}, {"norms": [2.0]}], **same)
    theirs = Counting([{"norms": [1.0]}], **same)
    options = {"settings": [Settings()], "fastest": True, "alternations": 2, "check": False}
    found = measured(Pair(ours, theirs, tick=lambda text: None), case(), **options)
    assert "ratio" not in found and found["differs"].startswith("alternation 2: norms")


@pytest.mark.parametrize(("side", "share"), [("ours", 0.5), ("trl", 0.5), ("trl", 0.25)])
def test_a_step_with_little_to_learn_has_no_ratio(side, share):
    workers = {
        name: Scripted(seconds=1.0, idle_groups=share if name == side else 0.0, **MEMORY)
        for name in ("ours", "trl")
    }
    options = {"settings": [Settings()], "fastest": True, "alternations": 1, "check": False}
    found = measured(Pair(**workers, tick=lambda text: None), case("step"), **options)
    assert ("ratio" in found) == (share <= 0.25)
    assert share <= 0.25 or f"{side}: 50%" in found["differs"]


def test_the_reward_of_a_step_tells_all_answers_apart():
    answers = ["", "5", "6", "2 + 3", "The answer is 5.", "The answer is 6.", "\n", "5" * 96]
    scores = step_config(case("step", prompts=1, group=8, max_tokens=8)).reward.score(
        answers, solution=["7"] * 8
    )
    assert [score.correct for score in scores] == [0.0] * 8
    assert len({score.value for score in scores}) == 7  # "5" and many of it are alike


def test_a_setting_is_judged_by_two_timings_unless_it_is_hopeless():
    """9 is thrown away, then 3 and 1 make 2; 2.5 is more than a fifth above that."""
    seconds = [9.0, 3.0, 1.0, 9.0, 2.5, 9.0, 2.3, 1.1]
    theirs = Counting([{"seconds": one} for one in seconds], **MEMORY)
    ticks = []
    settings = [Settings(name=name) for name in ("a", "b", "c")]
    tried = Pair(Scripted(), theirs, tick=ticks.append).trials(case(), settings)
    assert [one["timings"] for one in tried] == [[3.0, 1.0], [2.5], [2.3, 1.1]]
    assert [one["seconds"] for one in tried] == [2.0, 2.5, 1.7]
    assert len(ticks) == 9  # three a setting, as the bar counts them


def test_settings_of_a_step_are_told_apart_by_their_training():
    """Each samples for a time of its own, and all are charged with the first's."""
    answers = []
    for sample, train in ((5.0, 1.0), (2.0, 1.1)):
        answers += [{"seconds": sample + train, "parts": {"sample": sample}}]
        answers += 2 * [{"seconds": train}]
    theirs = Counting(answers, **MEMORY)
    settings = [Settings(), Settings(name="other", micro_batch=4)]
    tried = Pair(Scripted(), theirs, tick=lambda text: None).trials(case("step"), settings)
    assert [one["seconds"] for one in tried] == pytest.approx([6.0, 6.1])


def test_micro_batches_below_the_default_are_tried():
    one = case("step", prompts=8, group=8)
    assert {each.micro_batch for each in settings_of(one)} == {2, 4, 8}


def test_a_disturbed_timing_is_marked():
    timings = [{"seconds": 1.0, "cores": cores, **MEMORY} for cores in (1.9, 1.9, 1.5, 2.0)]
    found = summary(timings)
    assert found["cores"] == 1.9 and found["disturbed"] == [2]
    assert show._cores(found) == "1.90 (1 disturbed)"


def test_cores_are_of_this_process():
    clock = Meter("cpu")
    clock.begin()
    time.sleep(0.3)
    assert clock.end()["cores"] < 0.5
    clock.begin()
    until = time.process_time() + 0.2
    while time.process_time() < until:
        pass
    done = clock.end()
    assert done["cores"] * done["seconds"] == pytest.approx(0.2, abs=0.05)


@pytest.mark.parametrize(("leave", "since"), [(True, "begin"), (False, "process")])
def test_a_peak_that_cannot_be_forgotten_says_so(monkeypatch, leave, since):
    monkeypatch.setattr(meter, "_forget_peak", lambda: leave)
    clock = Meter("cpu")
    clock.begin()
    found = clock.end()
    assert found["peak_since"] == since
    assert show._peak(found).endswith("(process)") == (not leave)


def test_the_fastest_setting_is_compared():
    class Depends(Scripted):
        def ask(self, do, **values):
            if do == "open":
                self.answer["seconds"] = {8: 3.0, 4: 2.0, 2: 5.0}[
                    values["case"]["peer"]["micro_batch"]
                ]
            return super().ask(do, **values)

    one = {"losses": [1.0], "norms": [1.0], **MEMORY}
    pair = Pair(Scripted(seconds=1.0, **one), Depends(**one), tick=lambda text: None)
    settings = [Settings(), Settings(name="4", micro_batch=4), Settings(name="2", micro_batch=2)]
    options = {"settings": settings, "alternations": 1, "check": False}
    found = measured(pair, case(), fastest=True, **options)
    assert found["case"]["peer"]["name"] == "4" and found["ratio"] == 2.0
    assert measured(pair, case(), fastest=False, **options)["case"]["peer"]["name"] == "defaults"


def test_ratios_are_of_neighbours():
    """The machine slows down threefold in the middle; no pair sees it."""
    timings = {
        "ours": [{"seconds": 1.0}, {"seconds": 3.0}, {"seconds": 3.0}],
        "trl": [{"seconds": 2.0}, {"seconds": 6.0}, {"seconds": 9.0}],
    }
    found = ratios({side: {"timings": times} for side, times in timings.items()})
    assert found == {"ratios": [2.0, 2.0, 3.0], "ratio": 2.0}
