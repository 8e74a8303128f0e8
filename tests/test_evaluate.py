"""Held-out accuracy: two scores side by side, every answer kept, what was left out counted."""

import importlib.util
import json

import pytest
import runs

import data
from align import evaluate as module
from align.config import ConfigError, Engine, Evaluation, Sampling
from align.evaluate import evaluate
from align.evaluation.results import line
from align.evaluation.trained_on import TrainingData
from align.files.locate import Located
from align.models import load_tokenizer
from align.rollout import Sample

TINY = runs.REPOSITORY / "recipes" / "tiny_model"

# (solution, answer, strict, lenient, format)
ANSWERS = (
    ("5", "<think>2 + 3 = 5</think>\n<answer>5</answer>", 1, 1, 1),
    ("5", "<think>2 + 3 = 6</think>\n<answer>6</answer>", 0, 0, 1),
    ("7", "The answer is 7", 0, 1, 0),
    ("7", "<answer>7</answer>", 0, 1, 0),
    ("7", "<think>7</think><answer>7</answer> and more", 0, 1, 0),
    ("9", "", 0, 0, 0),
    ("1000", "<think>500 + 500</think> <answer>1,000</answer>", 1, 1, 1),
)


class PreparedEngine:
    """Stands in for a sampler: hands out answers written beforehand, in order."""

    def __init__(self, texts):
        self.tokenizer = load_tokenizer(str(TINY))
        self.texts = list(texts)
        self.requests, self.calls, self.closed = [], [], False

    def sample(self, requests):
        self.calls.append(len(requests))
        self.requests += requests
        return [[self._sample(self.texts.pop(0)) for _ in request.seeds] for request in requests]

    def _sample(self, text):
        ids = [*self.tokenizer(text, add_special_tokens=False)["input_ids"], 2]
        return Sample(ids=ids, logprobs=[0.0] * len(ids), truncated=text == "")

    def sync(self, weights):
        raise AssertionError("an evaluation trains nothing")

    def close(self):
        self.closed = True


def _problems(folder, solutions, prompts=None):
    """A file of problems, as `--data FILE` names it."""
    prompts = prompts or [f"Problem {i}" for i in range(len(solutions))]
    rows = [
        {"prompt": [{"role": "user", "content": prompt}], "solution": solution}
        for prompt, solution in zip(prompts, solutions, strict=True)
    ]
    file = folder / "problems.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return data.resolve(str(file))


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Evaluate prepared answers: (summary, rows of the .jsonl, the engine)."""

    def run(texts, solutions, *, prompts=None, label="tiny", training=(), **config):
        engine = PreparedEngine(texts)
        monkeypatch.setattr(module, "build", lambda *_, **__: engine)
        config = Evaluation(
            data=_problems(tmp_path, solutions, prompts), engine=Engine(kind="vllm"), **config
        )
        located = Located(kind="folder", path=str(TINY))
        out = tmp_path / "out"
        summary = evaluate(config, located, label=label, out=out, training=training)
        name = label if config.name == "evaluation" else f"{label}.{config.name}"
        written = (out / "evaluations" / f"{name}.json").read_text()
        assert json.loads(written) == json.loads(json.dumps(summary))
        lines = (out / "evaluations" / f"{name}.jsonl").read_text().splitlines()
        return summary, [json.loads(line) for line in lines], engine

    return run


def test_strict_lenient_and_format_are_counted_apart(run):
    summary, rows, engine = run([text for _, text, *_ in ANSWERS], [gold for gold, *_ in ANSWERS])
    expected = [tuple(scores) for _, _, *scores in ANSWERS]
    assert [(row["strict"], row["lenient"], row["format"]) for row in rows] == expected
    for name, successes in (("strict", 2), ("lenient", 5), ("format", 3)):
        score = summary[name]
        assert (score["successes"], score["n"]) == (successes, 7)
        assert score["mean"] == pytest.approx(successes / 7, rel=1e-12)
        assert 0 <= score["low"] < score["mean"] < score["high"] <= 1
    assert engine.closed


def test_every_answer_is_kept_as_it_was(run):
    summary, rows, engine = run([text for _, text, *_ in ANSWERS], [gold for gold, *_ in ANSWERS])
    assert [row["completion"] for row in rows] == [text for _, text, *_ in ANSWERS]
    assert [row["solution"] for row in rows] == [gold for gold, *_ in ANSWERS]
    assert [row["prompt"] for row in rows] == [f"Problem {i}" for i in range(7)]
    assert [row["row"] for row in rows] == list(range(7))
    assert [row["truncated"] for row in rows] == [False] * 5 + [True, False]
    lengths = [len(engine._sample(text).ids) for _, text, *_ in ANSWERS]
    assert [row["length"] for row in rows] == lengths
    assert summary["length"] == pytest.approx(sum(lengths) / 7, rel=1e-12)
    assert summary["truncated"] == pytest.approx(1 / 7, rel=1e-12)
    assert (summary["label"], summary["n"], summary["temperature"]) == ("tiny", 7, 0.0)
    assert summary["model"] == str(TINY)


def test_prompts_over_the_limit_are_left_out_and_counted(run, capsys):
    prompts = ["short", "long " * 40, "short again", "longer " * 40]
    summary, rows, engine = run(
        ["<think>a</think><answer>3</answer>", "1"],
        ["3", "3", "4", "4"],
        prompts=prompts,
        sampling=Sampling(temperature=0.0, max_prompt_tokens=60, max_tokens=16),
    )
    assert [(row["row"], row["prompt"], row["solution"]) for row in rows] == [
        (0, "short", "3"),
        (2, "short again", "4"),
    ]
    assert summary["n"] == 2
    assert summary["strict"]["n"] == 2
    assert summary["strict"]["successes"] == 1
    assert len(engine.requests) == 2
    assert "left out 2 prompts longer than 60 tokens" in capsys.readouterr().out


def test_where_every_prompt_is_over_the_limit_the_error_names_the_flag(run):
    with pytest.raises(data.DataError, match=r"--sampling\.max-prompt-tokens"):
        run([], ["3"], sampling=Sampling(max_prompt_tokens=1))


def test_a_limit_takes_the_first_problems(run):
    summary, rows, _ = run(["3", "0"], ["3", "4", "5"], limit=2)
    assert summary["n"] == 2
    assert [row["solution"] for row in rows] == ["3", "4"]
    summary, _, _ = run(["3"] * 3, ["3", "4", "5"], limit=99)
    assert summary["n"] == 3


def test_problems_are_handed_over_in_batches_and_keep_their_order(run, monkeypatch):
    monkeypatch.setattr(module, "BATCH", 3)
    _, rows, engine = run([str(i) for i in range(7)], [str(i) for i in range(7)])
    assert engine.calls == [3, 3, 1]
    prompts = [[{"role": "user", "content": f"Problem {i}"}] for i in range(7)]
    expected = [data.chat.prompt_ids(engine.tokenizer, prompt) for prompt in prompts]
    assert [request.prompt for request in engine.requests] == expected
    assert [row["completion"] for row in rows] == [str(i) for i in range(7)]
    assert [row["lenient"] for row in rows] == [1] * 7


def test_seeds_differ_from_problem_to_problem_and_with_the_runs_seed(run):
    def seeds(seed):
        _, _, engine = run(["3"] * 3, ["3"] * 3, seed=seed)
        return [seed for request in engine.requests for seed in request.seeds]

    assert seeds(0) == seeds(0)
    assert len({*seeds(0), *seeds(1)}) == 6


def test_several_answers_to_each_problem(run, monkeypatch):
    monkeypatch.setattr(module, "BATCH", 4)
    several = {"samples": 2, "sampling": Sampling(temperature=0.7), "name": "hard"}
    good = "<think>x</think><answer>3</answer>"
    summary, rows, engine = run([good, "4", "3", "3", "0", "1"], ["3"] * 3, **several)
    assert engine.calls == [2, 1]
    assert [(row["row"], row["sample"]) for row in rows] == [
        (i, j) for i in range(3) for j in (0, 1)
    ]
    assert [(row["strict"], row["lenient"]) for row in rows] == [
        (1, 1), (0, 0), (0, 1), (0, 1), (0, 0), (0, 0)
    ]  # fmt: skip
    seeds = [request.seeds for request in engine.requests]
    assert len({seed for each in seeds for seed in each}) == 6
    assert (summary["evaluation"], summary["n"], summary["samples"]) == ("hard", 3, 2)
    assert summary["pass"]["lenient"]["2"]["mean"] == pytest.approx(2 / 3)
    assert summary["strict"]["mean"] == pytest.approx(1 / 6)
    assert seeds[0][0] == module.seed_of(0, 0)
    # The first answer is drawn as it is where there is but one.
    _, _, alone = run(["3"] * 3, ["3"] * 3, sampling=Sampling(temperature=0.7))
    assert [list(request.seeds) for request in alone.requests] == [[each[0]] for each in seeds]


def test_several_answers_need_a_temperature(run):
    with pytest.raises(ConfigError, match=r"--samples 4.*--sampling\.temperature 0\.7"):
        run([], ["3"], samples=4)
    with pytest.raises(ConfigError, match="--samples 0"):
        run([], ["3"], samples=0)
    with pytest.raises(ConfigError, match="--name a/b"):
        run([], ["3"], name="a/b")


def test_a_prompt_that_training_saw_is_warned_of_and_written_down(run, tmp_path, capsys):
    (tmp_path / "seen").mkdir()
    training = [
        TrainingData(stage="sft", source=_problems(tmp_path / "seen", ["9"], ["Problem 1"]))
    ]
    summary, _, _ = run(["3"] * 3, ["3"] * 3, training=training)
    assert (summary["contamination"]["matched"], summary["contamination"]["prompts"]) == (1, 3)
    assert "WARNING, contamination: 1 of 3 prompts" in capsys.readouterr().out
    summary, _, _ = run(["3"], ["3"])
    assert summary["contamination"] is None


def test_how_far_it_is_is_said_now_and_then(run, monkeypatch, capsys):
    monkeypatch.setattr(module, "BATCH", 2)
    monkeypatch.setattr(module, "REPORTED", 0.0)
    run(["3"] * 5, ["3"] * 5)
    said = [line for line in capsys.readouterr().out.splitlines() if line.startswith("answered")]
    assert [line.split("problems")[0] for line in said] == ["answered 2 of 5 ", "answered 4 of 5 "]
    assert all("a second" in line and "tokens/s" in line and line.endswith("left") for line in said)


def test_countdown_is_judged_by_its_numbers(tmp_path, monkeypatch):
    file = tmp_path / "countdown.jsonl"
    rows = [{"nums": [3, 8, 3, 8], "target": 24}] * 2
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    texts = ["<think>x</think><answer>8/(3-8/3)</answer>", "<think>x</think><answer>24</answer>"]
    engine = PreparedEngine(texts)
    monkeypatch.setattr(module, "build", lambda *_, **__: engine)
    config = Evaluation(data=data.resolve(str(file)))
    located = Located(kind="folder", path=str(TINY))
    summary = evaluate(config, located, label="x", out=tmp_path)
    assert (summary["strict"]["successes"], summary["format"]["successes"]) == (1, 2)
    kept = [json.loads(line) for line in (tmp_path / "evaluations" / "x.jsonl").open()]
    assert [(row["nums"], row["target"]) for row in kept] == [([3, 8, 3, 8], 24)] * 2


def test_a_result_has_the_weights_that_were_there_before_answering(run, monkeypatch):
    """A stage that runs again meanwhile writes others, and no old answer bears their name."""
    weights = ["before"]
    monkeypatch.setattr(module, "weights_of", lambda _: weights[0])

    def answering(*_):
        weights[0] = "after"

    monkeypatch.setattr(PreparedEngine, "close", answering)
    assert run(["3"], ["3"])[0]["weights"] == "before"


def test_rows_without_a_solution_are_refused_by_name(run):
    with pytest.raises(data.DataError, match="solution"):
        run(["3"], [None])


def test_the_line_for_the_terminal(run):
    summary, _, _ = run(["3", "<think>a</think><answer>4</answer>"], ["3", "4"])
    text = line(summary | {"seconds": 61.0})
    assert text.startswith("tiny: strict 50.0% [")
    assert "lenient 100.0% [" in text
    assert text.endswith("n=2  in 1:01")


@pytest.fixture
def script(tmp_path, monkeypatch):
    """scripts/evaluate.py with its evaluation recorded instead of made."""
    path = runs.REPOSITORY / "scripts" / "evaluate.py"
    spec = importlib.util.spec_from_file_location("evaluate_script", path)
    loaded = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(loaded)
    seen = []

    def record(config, located, *, label, out, training):
        inside = located.path.startswith(str(tmp_path))  # both stages read one source
        assert [each.stage for each in training] == (["sft"] if inside else [])
        seen.append((config, located, label, out))
        interval = {"mean": 0.5, "low": 0.0, "high": 1.0}
        scores = dict.fromkeys(("strict", "lenient", "format"), interval)
        return {"label": label, "evaluation": config.name, "n": 1, "seconds": 0.0, **scores}

    monkeypatch.setattr(module, "evaluate", record)
    for stage in ("sft", "grpo"):
        folder = tmp_path / "run" / stage / "model"
        folder.mkdir(parents=True)
        (folder / "config.json").write_text("{}")
        (folder / "model.safetensors").write_text("")
        (folder / "tokenizer.json").write_text("{}")

    def call(*args):
        command = ["evaluate.py", "--recipe", "tiny", "--out", str(tmp_path / "run"), *args]
        monkeypatch.setattr("sys.argv", command)
        loaded.main()
        return seen[-1]

    return call


@pytest.mark.parametrize(
    ("args", "label"),
    [
        ((), "grpo-arithmetic-test"),
        (("--model", "@sft"), "sft-arithmetic-test"),
        (("--model", "{model}"), "sft-arithmetic-test"),
        (("--model", "{model}/"), "sft-arithmetic-test"),
        (("--model", "@sft", "--label", "before"), "before"),
        (("--model", "@sft", "--data", "gsm8k:test"), "sft-gsm8k-test"),
        (("--model", "random:recipes/tiny_model"), "tiny_model-arithmetic-test"),
    ],
)
def test_a_result_is_called_after_its_model_and_its_data(script, tmp_path, args, label):
    model = str(tmp_path / "run" / "sft" / "model")
    _, located, called, out = script(*(arg.format(model=model) for arg in args))
    assert called == label
    assert out == tmp_path / "run"
    stage = "grpo" if label.startswith("grpo") else "sft"
    if located.kind == "folder":
        assert located.path == str(tmp_path / "run" / stage / "model")


def test_the_scripts_flags_reach_the_evaluation(script):
    config, *_ = script("--limit", "4", "--sampling.max-tokens", "7")
    assert (config.limit, config.sampling.max_tokens, config.sampling.temperature) == (4, 7, 0.0)


def test_a_former_result_that_cannot_be_read_ends_with_a_sentence(script, tmp_path, capsys):
    result = tmp_path / "run" / "evaluations" / "before.json"
    result.parent.mkdir()
    result.write_text('{"weights": ')
    with pytest.raises(SystemExit) as ended:
        script("--model", "@sft", "--label", "before", "--resume")
    assert ended.value.code == 2
    assert f"error: {result} cannot be read" in capsys.readouterr().err


def test_a_model_that_is_not_there_ends_with_a_sentence(script, capsys):
    with pytest.raises(SystemExit) as ended:
        script("--model", "@later")
    assert ended.value.code == 2
    assert (
        "recipe tiny has no stage called 'later' (there are: sft, grpo)" in capsys.readouterr().err
    )
