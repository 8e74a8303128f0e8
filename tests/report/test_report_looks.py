"""How the page looks and that it is safe, in a real browser, where one is installed."""

import re
from pathlib import Path
from typing import Any

import pytest
from chromium import MISSING, PROGRAM, Chromium
from run_folders import write_json, write_lines

from align import report

pytestmark = pytest.mark.skipif(PROGRAM is None, reason=MISSING)
SHIFT = """new Promise((done) => new PerformanceObserver((list) => done(
    list.getEntries().reduce((sum, entry) => sum + entry.value, 0)
)).observe({type: "layout-shift", buffered: true}) || setTimeout(() => done(0), 300))"""


def test_nothing_shifts_and_nothing_sticks_out(browser: Chromium, chain_page: Path) -> None:
    """On a desk's screen and on a phone's of 360 points."""
    for width in (1280, 360):
        browser.screen(width, 800)
        browser.open(chain_page)
        assert browser.run(SHIFT) < 0.01
        assert browser.run("document.documentElement.scrollWidth") <= width
        small = browser.run(
            "[...document.querySelectorAll('.browser button')].filter((b) => b.offsetParent)"
            ".map((b) => b.getBoundingClientRect().height).filter((h) => h < 24).length"
        )
        assert small == 0


def test_both_schemes_can_be_read(browser: Chromium, chain_page: Path) -> None:
    """WCAG's contrast of 4.5 for every text and its nearest background."""
    for dark in (False, True):
        browser.screen(1280, 800, dark=dark)
        browser.open(chain_page)
        pairs = browser.run(
            """[...document.querySelectorAll('main *, header *')]
              .filter((e) => [...e.childNodes].some((n) => n.nodeType === 3 && n.data.trim()))
              .filter((e) => !e.closest('[aria-disabled=true], svg, script, option'))
              .map((e) => {
                let behind = e;
                const none = 'rgba(0, 0, 0, 0)';
                while (behind && getComputedStyle(behind).backgroundColor === none)
                  behind = behind.parentElement;
                const back = getComputedStyle(behind || document.documentElement).backgroundColor;
                return [getComputedStyle(e).color, back, e.className + ' ' + e.innerText];
              })"""
        )
        assert len(pairs) > 300
        poor = {(a, b, text[:40]) for a, b, text in pairs if contrast(a, b) < 4.5}
        assert poor == set()


def contrast(one: str, other: str) -> float:
    """WCAG 2.2's contrast ratio of two CSS colours."""
    dark, light = sorted(map(luminance, (one, other)))
    return (light + 0.05) / (dark + 0.05)


def luminance(colour: str) -> float:
    channels = [int(number) / 255 for number in re.findall(r"\d+", colour)[:3]]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def test_hostile_completions_stay_text(browser: Chromium, tmp_path: Path) -> None:
    evil = "</script><script>document.title = 'owned'</script><img src=x onerror=alert(1)>"
    row: dict[str, Any] = {"step": 1, "prompt_index": 0, "sample": 0, "parts": {evil: 1.0}}
    row |= dict.fromkeys(("prompt", "completion", "solution", "outcome"), evil)
    write_lines(tmp_path / "grpo" / "samples.jsonl", [row])
    write_json(tmp_path / "chain.json", {"nodes": [{"stage": evil, "why": evil, "kind": evil}]})
    for label in ("a", "b"):
        answer = {"row": 0, "prompt": evil, "completion": evil, "strict": 1}
        share = {"label": label, "data": evil, "strict": {"successes": 1, "n": 1}}
        write_json(tmp_path / "evaluations" / f"{label}.json", share)
        write_lines(tmp_path / "evaluations" / f"{label}.jsonl", [answer])
    browser.open(report.write(tmp_path))
    assert browser.text(".card .text") == evil
    browser.pick("Completions of", "evaluations: what changed")
    browser.wait("document.querySelector('.state').textContent.startsWith('From')")
    browser.tab("Both right")
    assert browser.text(".problem .card .text") == evil
    assert browser.run("document.title") != "owned"
    assert browser.run("document.images.length") == 0
