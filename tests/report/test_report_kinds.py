"""The same key means different things in different stages; each panel says which."""

from pathlib import Path

import pytest
from page_parser import load

from align import report
from align.report import curves


def panel(key: str, kind: str) -> tuple[str, str, str]:
    found = curves.panels([{"step": 1, key: 0.5}], kind=kind)
    [(section, [only])] = found.items()
    return section, only.title, only.unit


@pytest.mark.parametrize(
    ("kind", "section", "title"),
    [
        ("grpo", "Behaviour", "Raw accuracy"),
        ("ppo", "Behaviour", "Raw accuracy"),
        ("reward_model", "Preference", "Pairwise accuracy"),
        ("dpo", "Preference", "Pairwise accuracy, implicit rewards"),
        ("", "Behaviour", "Accuracy"),
        ("something else", "Behaviour", "Accuracy"),
    ],
)
def test_accuracy_is_named_by_the_stages_kind(kind: str, section: str, title: str) -> None:
    assert panel("accuracy", kind)[:2] == (section, title)


def test_kl_has_the_unit_of_its_stage() -> None:
    assert panel("kl", "ppo") == ("Policy", "KL to reference", "nats per token")
    assert panel("kl/sequence", "ppo")[2] == "nats per sequence"
    assert panel("kl", "kto") == ("Preference", "KL reference point", "nats per sequence")


def test_every_key_of_the_preference_stages_has_a_name(rlhf_folder: Path) -> None:
    page = load(report.write(rlhf_folder))
    for words in (
        "Pairwise accuracy",
        "Margin of scores",
        "Mean score",
        "Pairwise accuracy, implicit rewards",
        "Margin of implicit rewards",
        "Implicit reward, chosen",
        "Implicit reward, rejected",
        "KL, whole sequence",
        "KL coefficient",
        "Value loss",
        "Explained variance",
        "Value clip fraction",
        "Critic warm-up",
        "Return",
    ):
        assert words in page.text, words
    used = {key for key in curves.KNOWN if curves.KNOWN[key][0] not in curves.SECTIONS}
    assert used == set()
    grouped = [words for kind in curves.OF_KIND.values() for words in kind.values()]
    assert {section for section, _, _ in grouped} <= set(curves.SECTIONS)


def test_panels_keep_the_order_of_the_page() -> None:
    row = {"step": 1, "loss": 1.0, "rejected": 0.1, "accuracy": 0.5, "chosen": 0.2, "margin": 0.1}
    found = curves.panels([row], kind="dpo")
    assert list(found) == ["Preference", "Optimization"]
    assert [p.key for p in found["Preference"]] == ["accuracy", "margin", "chosen", "rejected"]
