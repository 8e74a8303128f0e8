"""The browser of completions in a real browser, where one is installed, used as a reader uses it.

By clicks and keys; nothing of the page's script is called. The fixture `browser` sees to it that
after each test the console is empty and nothing has been fetched.
"""

import json
from pathlib import Path

import pytest
import rlhf_folders
from chromium import MISSING, PROGRAM, Chromium
from page_parser import groups, load
from run_folders import without_curves, write_lines

from align import report

pytestmark = pytest.mark.skipif(PROGRAM is None, reason=MISSING)
CARDS = "[...document.querySelectorAll('.card')]"


def rewards(browser: Chromium) -> list[float]:
    return browser.run(f"{CARDS}.map((c) => Number(c.querySelector('.reward').textContent))")


def test_ten_thousand_completions_are_usable_at_once(browser: Chromium, many_page: Path) -> None:
    page = load(many_page)
    texts = [row["completion"] for group in groups(page, "grpo") for row in group["rows"]]
    assert len(texts) == 10_000
    assert sum(map(len, texts)) / len(texts) > 400
    assert many_page.stat().st_size < 5_000_000
    browser.open(many_page)
    assert browser.run("performance.getEntriesByName('ready')[0].startTime") < 3000
    # What is drawn does not grow with what there is.
    assert browser.run("document.querySelectorAll('*').length") < 2000
    began = browser.run("performance.now()")
    browser.click(".browser input[type=search]")
    browser.type("needle IN the")
    browser.wait("document.querySelector('.state').textContent.includes('found')")
    assert browser.run("performance.now()") - began < 3000
    assert browser.text(".state") == "1 of 10,000 completions found, in 1 groups."
    assert browser.text(".card mark") == "Needle in the"
    browser.press("Escape")
    browser.wait("document.querySelector('.state').textContent.startsWith('Step')")
    browser.tab("Best")
    browser.pick("Lists are of", "all steps")
    shown = rewards(browser)
    assert len(shown) == 24
    best = sorted((r["reward"] for g in groups(page, "grpo") for r in g["rows"]), reverse=True)
    assert shown == best[:24]
    browser.click(".more")
    assert rewards(browser) == best[:48]
    browser.tab("Prompt")  # each of 500 problems comes up every 20 steps
    assert browser.text(".state") == "Step 50, prompt 1 of 25."
    assert browser.text(".alike") == "The same prompt at step 10 step 30"
    browser.click(".alike button")
    assert browser.text(".state") == "Step 10, prompt 1 of 25."


def test_a_group_stands_side_by_side_best_first(browser: Chromium, chain_page: Path) -> None:
    browser.open(chain_page)
    [last] = [g for g in groups(load(chain_page), "mixed") if g["step"] == 12][:1]
    assert browser.text(".state") == "Step 12, prompt 1 of 3."
    assert last["prompt"] in browser.text(".prompt")
    assert f"Solution {last['solution']}" in browser.text(".prompt")
    best_first = sorted(last["rows"], key=lambda row: -row["reward"])
    assert rewards(browser) == [row["reward"] for row in best_first]
    first = browser.text(".card")
    row = best_first[0]
    for words in ("accuracy 1", f"format {row['parts']['format']:g}", "✓ right", "advantage +"):
        assert words in first, words
    # Side by side: the first cards share a line of the screen.
    tops = browser.run(f"{CARDS}.slice(0, 4).map((c) => Math.round(c.getBoundingClientRect().top))")
    assert len(set(tops)) == 1


def test_keys_move_search_and_help(browser: Chromium, chain_page: Path) -> None:
    browser.open(chain_page)
    browser.run("document.querySelector('#completions').scrollIntoView({behavior: 'instant'})")
    browser.press("j")
    assert browser.text(".state") == "Step 12, prompt 2 of 3."
    browser.press("ArrowRight")
    assert browser.text(".state") == "Step 12, prompt 3 of 3."
    browser.press("ArrowRight")  # the last: nothing follows
    assert browser.text(".state") == "Step 12, prompt 3 of 3."
    browser.press("k")
    browser.press("k")
    browser.press("ArrowLeft")
    assert browser.text(".state") == "Step 11, prompt 3 of 3."
    browser.press("b")
    assert "highest reward of step 11 first" in browser.text(".state")
    browser.press("j")
    browser.press("j")
    assert browser.run(f"{CARDS}.findIndex((c) => c.classList.contains('chosen'))") == 1
    browser.press("Enter")
    assert browser.text(".state").startswith("Step 11, prompt")
    browser.press("/")
    assert browser.run("document.activeElement.type") == "search"
    browser.type("no such words")
    browser.wait("document.querySelector('.state').textContent === 'Nothing found.'")
    browser.press("Escape")
    browser.wait("document.querySelector('.state').textContent.startsWith('Step 11')")
    browser.press("?")
    assert browser.run("document.querySelector('dialog').open")
    assert "previous, next prompt" in browser.text("dialog")
    browser.press("Escape")
    assert not browser.run("document.querySelector('dialog').open")


def test_the_search_counts_what_plain_text_holds(browser: Chromium, chain_page: Path) -> None:
    """Case does not matter, a pattern is no pattern, prompts count too."""
    browser.open(chain_page)
    found = groups(load(chain_page), "mixed")
    rows = [(g["prompt"], r["completion"]) for g in found for r in g["rows"]]
    for needle in ("MULTIPLICATION comes", "think first", "* 1", ".*"):
        held = sum(needle.lower() in f"{p}\0{c}".lower() for p, c in rows)
        browser.run("document.querySelector('.browser input').value = ''")
        browser.click(".browser input[type=search]")
        browser.type(needle)
        count = f"{held:,} of {len(rows)} completions found" if held else "Nothing found."
        browser.wait(f"document.querySelector('.state').textContent.startsWith({count!r})")


def test_most_repeated_texts_come_first(browser: Chromium, tmp_path: Path) -> None:
    row = {"step": 1, "prompt": "?", "reward": 0.5, "sample": 0}
    texts = ["again", "once", " again ", "twice", "again", "twice"]
    rows = [row | {"prompt_index": i, "completion": text} for i, text in enumerate(texts)]
    write_lines(tmp_path / "grpo" / "samples.jsonl", rows)
    browser.open(report.write(tmp_path))
    browser.tab("Most repeated")
    shown = browser.run(f"{CARDS}.map((card) => card.innerText.replace(/\\s+/g, ' '))")
    assert [text.split(" step")[0] for text in shown] == ["3 times, 50 %,", "2 times, 33.3 %,"]
    assert "2 texts were written more than once among the 6" in browser.text(".state")


def test_first_and_last_step_side_by_side(browser: Chromium, tmp_path: Path) -> None:
    """Best and worst of both; nothing that the stage does not measure takes place."""
    rlhf_folders.rlhf(tmp_path)
    without_curves(tmp_path)
    browser.open(report.write(tmp_path))
    browser.tab("First | last")
    cells = browser.run(
        "[...document.querySelectorAll('.extremes > section')]"
        ".map((cell) => cell.innerText.replace(/\\s+/g, ' '))"
    )
    names = [f"{name} of step {step}" for name in ("Best", "Worst") for step in (1, 12)]
    assert [cell[: len(name)] for cell, name in zip(cells, names, strict=True)] == names
    lines = (tmp_path / "ppo" / "samples.jsonl").read_text().splitlines()
    last = [row for line in lines if (row := json.loads(line))["step"] == 12]
    for row, cell in (
        (max(last, key=lambda row: row["reward"]), cells[1]),
        (min(last, key=lambda row: row["reward"]), cells[3]),
    ):
        assert row["completion"].strip() in cell
        assert f"reward {row['reward']:.3g}" in cell
    for absent in ("Solution", "✓", "✗", "soft_overlong", "outcome"):
        assert absent not in "".join(cells), absent


def test_what_changed_since_the_cold_start(browser: Chromium, chain_page: Path) -> None:
    """Gained, lost, both, neither: counted from the rows; texts side by side."""
    verdicts = {
        label: [
            json.loads(line)["strict"]
            for line in (chain_page.parent / "evaluations" / f"{label}.jsonl").open()
        ]
        for label in ("cold", "zero", "mixed")
    }
    browser.open(chain_page)
    browser.pick("Completions of", "evaluations: what changed")
    browser.wait("document.querySelector('.problem')")

    def counts(before: str, after: str) -> str:
        pairs = list(zip(verdicts[before], verdicts[after], strict=True))
        gained, lost, both, neither = (pairs.count(p) for p in ((0, 1), (1, 0), (1, 1), (0, 0)))
        return (
            f"From {before} to {after}, strict: {gained} gained, {lost} lost, "
            f"{both} both right, {neither} neither."
        )

    assert browser.text(".state") == counts("cold", "mixed")
    browser.pick("Before", "zero")
    assert browser.text(".state") == counts("zero", "mixed")
    lost = [i for i, p in enumerate(zip(verdicts["zero"], verdicts["mixed"])) if p == (1, 0)]  # noqa: B905
    browser.tab("Lost")
    shown = browser.run(
        "[...document.querySelectorAll('.problem .prompt > .text')].map((e) => e.innerText)"
    )
    assert shown == [f"What is {row} + 2?" for row in lost][:24]
    browser.pick("Problems of", "hard: gym")
    browser.tab("Gained")
    sides = browser.text(".problem .sides")
    assert sides.count("cold answers") == sides.count("mixed answers") == 4
