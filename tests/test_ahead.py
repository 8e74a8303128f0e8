"""`--ahead 1`: the next rollout is sampled while this one trains, one update off-policy."""

import json
import signal
import threading
from types import SimpleNamespace

import pytest
import runs
import tiny
import torch
from stand_in import Learner

import data
from align.config import ConfigError, Engine, Grpo
from align.modeling.lora import merged_weights
from align.rollout import EngineError, Request, Sample
from align.stages.ahead import Ahead

STEPS = 4


@pytest.fixture
def learner():
    made = Learner(tiny.CHAT_FOLDER, tiny.chat_tokenizer())
    yield made
    made.close()


def args(learner, out, *more, ahead=1, steps=STEPS):
    flags = "--recipe tiny --model random:recipes/tiny_model --engine.kind server --engine.patience"
    flags += f" 1 --checkpoints.every 1 --prompts 2 --ahead {ahead} --steps {steps}"
    return [*flags.split(), "--engine.url", learner.url, "--out", out, *more]


def run(given, folder, *, expect=0, **more):
    answer = runs.nursery().run("grpo", given, log=folder / "log", **more)
    text = (folder / "log").read_text()
    assert set(answer["codes"]) == {expect}, text
    return text


def test_a_step_is_sampled_with_the_weights_of_one_update_before(learner, tmp_path):
    """By the seeds that it has in any case; and the trainer's own weights make the difference that
    `mismatch` measures: rounding alone in the first step, an update more from the third on.
    """
    run(args(learner, tmp_path / "off", ahead=0), tmp_path, hurt=["server_hurts.all_learn"])
    asked, updates = learner.asked[:], learner.loaded[:]
    learner.asked.clear(), learner.loaded.clear()
    run(args(learner, tmp_path / "on"), tmp_path, hurt=["server_hurts.all_learn"])
    size = len(asked) // STEPS
    assert [weights for *_, weights in asked] == [each for each in updates for _ in range(size)]
    steps = [learner.asked[i * size : (i + 1) * size] for i in range(STEPS)]
    for i, step in enumerate(steps):
        assert {seed for seed, *_ in step} == {seed for seed, *_ in asked[i * size :][:size]}
        assert {weights for *_, weights in step} == {learner.loaded[max(0, i - 1)]}
    assert len(learner.loaded) == len(set(learner.loaded)) == STEPS - 1
    assert learner.loaded[:2] == updates[:2]  # the first two steps learn from the same samples
    off, on = (
        [row["mismatch/logprob"] for row in runs.rows(tmp_path / name / "grpo" / "metrics.jsonl")]
        for name in ("off", "on")
    )
    assert on[0] == off[0] and max(off) < 0.005
    assert min(on[1:]) > 4 * max(off)


@pytest.mark.parametrize(
    ("harm", "code", "at"),
    [
        ("server_hurts.killed_while_it_learns", -signal.SIGKILL, 2),
        ("server_hurts.term_while_it_learns", 143, 2),
        ("term_in_minibatch", 143, 3),
    ],
    ids=["killed", "term-while-scoring", "term-while-training"],
)
def test_what_was_sampled_ahead_outlives_the_run(learner, tmp_path, harm, code, at):
    """A checkpoint has it, and a resumed run learns from it, bit for bit as one that never ended;
    nothing that it holds is asked again.
    """
    (tmp_path / "whole").mkdir()
    run(args(learner, tmp_path / "whole"), tmp_path)
    learner.asked.clear()
    run(args(learner, tmp_path), tmp_path, expect=code, hurt=[harm, 3])
    newest = tmp_path / "grpo" / "checkpoints" / runs.checkpoints(tmp_path / "grpo")[-1]
    ahead = json.loads((newest / "manifest.json").read_text())["stage"]["ahead"]
    assert ahead["step"] == at + 1
    assert [place for place, _ in ahead["drawn"]] == [2 * at, 2 * at + 1]
    learner.asked.clear()
    learner.start_again()
    run(args(learner, tmp_path, "--resume"), tmp_path)
    # By their seeds: on a busy machine a request may be made twice.
    assert len({seed for seed, *_ in learner.asked}) == 8 * (STEPS - at - 1)
    runs.check_equal(tmp_path / "grpo", tmp_path / "whole" / "grpo")


def test_it_does_not_matter_which_is_done_first(learner, tmp_path):
    for name, hurt in (("beside", None), ("after", ["server_hurts.one_after_the_other"])):
        run(args(learner, tmp_path / name), tmp_path, hurt=hurt)
    runs.check_equal(tmp_path / "beside" / "grpo", tmp_path / "after" / "grpo")


def test_a_server_that_goes_while_the_trainer_works(learner, tmp_path):
    """Whoever takes the rollout gets the error; a resumed run samples it anew."""
    draw, left = learner.draw, iter(range(1, 10**6))
    learner.routes["/v1/completions"] = lambda body: (
        draw(body) if next(left) <= 16 + 3 else (None, {})
    )
    text = run(args(learner, tmp_path), tmp_path, expect=2)
    assert "step 3: " in text and "Start it again with" in text and "Traceback" not in text
    learner.routes["/v1/completions"] = draw
    run(args(learner, tmp_path, "--resume"), tmp_path)
    metrics = runs.rows(tmp_path / "grpo" / "metrics.jsonl")
    assert [row["step"] for row in metrics] == [1, 2, 3, 4]


def test_two_processes(learner, tmp_path):
    """What one process has drawn ahead is in the checkpoint that the other writes, and is learnt
    from after a resume, bit for bit.
    """
    (tmp_path / "whole").mkdir()
    run(args(learner, tmp_path / "whole"), tmp_path, ranks=2)
    hurt = ["server_hurts.killed_while_it_learns", 3]
    run(args(learner, tmp_path), tmp_path, ranks=2, hurt=hurt, expect=-signal.SIGKILL)
    newest = tmp_path / "grpo" / "checkpoints" / runs.checkpoints(tmp_path / "grpo")[-1]
    ahead = json.loads((newest / "manifest.json").read_text())["stage"]["ahead"]
    assert ahead["step"] == 3 and [place for place, _ in ahead["drawn"]] == [4, 5]
    learner.asked.clear()
    learner.start_again()
    run(args(learner, tmp_path, "--resume"), tmp_path, ranks=2)
    assert len(learner.asked) == 8 * (STEPS - 3)
    runs.check_equal(tmp_path / "grpo", tmp_path / "whole" / "grpo")


SAMPLE = Sample(ids=[3, 2], logprobs=[-0.125, -1.0], truncated=False)


def _ahead(engine=None):
    """Over a sampler that asks for one completion a place and hands its engine's answers on."""
    sampler = SimpleNamespace(
        engine=engine,
        requests=lambda step, places: [Request(prompt=[p], seeds=[step]) for p in places],
        rolled=lambda places, answers: dict(zip(places, answers, strict=True)),
    )
    return Ahead(sampler, SimpleNamespace(gathered=lambda items: items))


def test_another_number_of_processes_takes_over_what_was_drawn():
    drawn = {place: [Sample(ids=[place], logprobs=[-1.0], truncated=True)] for place in range(4)}
    state = {
        "step": 7,
        "drawn": [[place, [[one.ids, one.logprobs, one.truncated] for one in samples]]
                  for place, samples in drawn.items()],
    }  # fmt: skip
    state = json.loads(json.dumps(state))
    for places in ([0, 1, 2, 3], [1, 3], []):
        one = _ahead()
        one.load_state(state)
        assert one.has(7) and one.state() == state
        assert one.take(places) == {place: drawn[place] for place in places}
        assert not one.has(7) and one.state() == {}
        one.give_back(7)
        assert one.has(7) and one.state() == state


def test_the_state_waits_for_what_is_being_drawn():
    go, answered = threading.Event(), threading.Event()

    def sample(requests):
        go.wait(30)
        answered.set()
        return [[SAMPLE] for _ in requests]

    one = _ahead(SimpleNamespace(sample=sample))
    assert one.state() == {}
    one.begin(3, [4, 5])
    assert not answered.is_set()
    threading.Timer(0.05, go.set).start()
    rows = [[place, [[[3, 2], [-0.125, -1.0], False]]] for place in (4, 5)]
    assert one.state() == {"step": 3, "drawn": rows}
    assert one.take([4, 5]) == {4: [SAMPLE], 5: [SAMPLE]}
    assert one.state() == {}
    one.give_back(3)
    assert one.state() == {"step": 3, "drawn": rows}
    assert one.take([4, 5]) == {4: [SAMPLE], 5: [SAMPLE]}
    one.begin(4, [6])
    one.give_back(3)  # too late: the one after is under way
    assert one.has(4) and not one.has(3)


def test_an_error_is_raised_where_the_rollout_is_taken():
    def sample(requests):
        raise EngineError("gone")

    one = _ahead(SimpleNamespace(sample=sample))
    one.begin(3, [4])
    assert one.state() == {}
    assert one.has(3)
    with pytest.raises(EngineError, match="gone"):
        one.take([4])


def test_closing_the_engine_gives_up_what_is_being_sampled(learner, tmp_path):
    """Each completion would take half a minute."""
    from test_server_training import engine

    sampler = engine(learner, tmp_path, patience=60.0)
    torch.manual_seed(0)
    sampler.sync(merged_weights(tiny.model(vocab_size=100, hidden_size=64, intermediate_size=128)))
    over = threading.Event()
    learner.routes["/v1/completions"] = lambda _: (over.wait(30), (503, {}))[1]
    ahead = _ahead(sampler)
    ahead.begin(2, range(4))
    runs.wait_for(lambda: sampler.connection._running, 10, what="the thread")
    done = threading.Thread(target=lambda: (sampler.close(), ahead.close()), daemon=True)
    done.start()
    done.join(10)
    over.set()
    assert not done.is_alive()
    with pytest.raises(EngineError, match="was given up"):
        ahead.take(range(4))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"engine": Engine(kind="hf")}, "--ahead 1: .* --engine.kind is not server"),
        ({"importance": "off"}, "--ahead 1: .* --importance is off"),
        ({"refill": 1}, "--refill 1: .*--ahead is 1"),
    ],
)
def test_what_does_not_go_with_it(changes, said):
    given = {
        "model": "m",
        "data": data.Arithmetic(),
        "reward": tiny.recorded_reward,
        "engine": Engine(kind="server"),
        "ahead": 1,
    }
    Grpo(**given)
    with pytest.raises(ConfigError, match=said):
        Grpo(**(given | changes))
