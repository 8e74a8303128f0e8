import time

import pytest

import data
from data import hub


def test_short_names_files_and_hub_ids(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text('{"question": "q", "answer": "1"}', encoding="utf-8")
    assert data.resolve("arithmetic") == data.Arithmetic()
    assert data.resolve("gsm8k:test") == data.GSM8K(split="test")
    assert data.resolve("GSM8K") == data.GSM8K()
    assert data.resolve("openai/gsm8k") == data.GSM8K()
    assert data.resolve("math-500") == data.MATH500(split="test")
    assert data.resolve("someone/some-set:valid") == data.Hub(id="someone/some-set", split="valid")
    assert data.resolve("reasoning-gym:gcd") == data.ReasoningGym(task="gcd")
    assert data.resolve(str(path)) == data.Local(path=str(path))
    assert isinstance(data.resolve("numinamath-tir"), data.NuminaMathTIR)
    assert isinstance(data.resolve("bespoke-stratos"), data.BespokeStratos)
    assert isinstance(data.resolve("ultrafeedback"), data.UltraFeedback)
    assert isinstance(data.resolve("hh-rlhf"), data.HHRLHF)


def test_fields_follow_a_question_mark(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text("{}", encoding="utf-8")
    found = data.resolve(f"{path}?limit=5&style=r1&complete=true&split=[:90%]")
    assert found == data.Local(path=str(path), limit=5, style="r1", complete=True, split="[:90%]")
    assert data.resolve("arithmetic?operators=3&parentheses=true") == data.Arithmetic(
        operators=3, parentheses=True
    )
    assert data.resolve("gsm8k:test?seed=1") == data.GSM8K(split="test", seed=1)


def test_folders_and_several_files_are_files(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("gsm8k", "some/set", "some/empty"):
        (tmp_path / name).mkdir(parents=True)
    for name in ("gsm8k/a.jsonl", "some/set/a.jsonl", "b.jsonl"):
        (tmp_path / name).write_text('{"prompt": "q"}', encoding="utf-8")
    for path in ("some/set", "some/set/", "./gsm8k", "b.jsonl+some/set", str(tmp_path / "gsm8k")):
        assert data.resolve(path) == data.Local(path=path)
    assert data.resolve("gsm8k") == data.GSM8K()
    assert data.resolve("some/empty") == data.Hub(id="some/empty")
    assert data.resolve("b.jsonl+some/set").name == "b+set"
    assert data.resolve("b.jsonl+some/set").rows()["prompt"] == ["q", "q"]
    with pytest.raises(data.DataError, match="empty holds no"):
        data.resolve("./some/empty")
    with pytest.raises(data.DataError, match=r"no file none.jsonl"):
        data.resolve("b.jsonl+none.jsonl")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("gsm8l", "did you mean gsm8k"),
        ("aritmetic", "did you mean arithmetic"),
        ("zzz", "Known are arithmetic"),
        ("rows.jsonl", "no file rows.jsonl"),
        ("arithmetic?sise=3", "no field 'sise'.*size"),
        ("arithmetic?size=many", "size='many' must be a whole number"),
        ("arithmetic?parentheses=1", "must be true or false"),
        ("arithmetic?size", "must be field=value"),
        ("arithmetic:dev", "train and test"),
        ("arithmetic?style=r3", "style='r3' is unknown"),
    ],
)
def test_what_names_nothing_is_refused_with_what_to_type(text, said):
    with pytest.raises(data.DataError, match=said):
        data.resolve(text)


def test_a_hub_out_of_reach_is_said_within_seconds_with_the_override(monkeypatch):
    def refuse(*_, **__):
        raise ConnectionError("no route")

    monkeypatch.setattr("huggingface_hub.HfApi.dataset_info", refuse)
    before = time.monotonic()
    with pytest.raises(data.DataError) as error:
        data.resolve("someone/never-cached-set").rows()
    assert time.monotonic() - before < 10
    assert "someone/never-cached-set (train)" in str(error.value)
    assert "no route" in str(error.value)
    assert "--data path/to/file.jsonl" in str(error.value)


def test_a_hub_in_reach_is_mapped_by_its_columns(monkeypatch):
    asked = []

    def load(name, config, split):
        asked.append((name, config, split))
        return [{"question": "q", "answer": "so\n#### 5"}]

    monkeypatch.setattr(hub, "load", load)
    assert data.resolve("gsm8k:test").rows()["solution"] == ["5"]
    assert data.resolve("someone/like-gsm8k").rows()["solution"] == ["5"]
    assert asked == [("openai/gsm8k", "main", "test"), ("someone/like-gsm8k", None, "train")]
