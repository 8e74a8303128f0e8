"""The page in a real browser, where one is installed: what its script makes of PPO's samples."""

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from page_parser import Page, load

from align import report

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
PRESS = """
const buttons = [...document.querySelectorAll("button")];
buttons.find((button) => button.textContent === "First | last").click();
"""


def test_a_scores_samples_reach_the_page_without_verdicts(rlhf_folder: Path) -> None:
    page = load(report.write(rlhf_folder))
    embedded = next(text for name, text in page.scripts.items() if name.startswith("samples-"))
    groups = json.loads(embedded)["groups"]
    assert {group["solution"] for group in groups} == {None}
    assert {row["correct"] for group in groups for row in group["rows"]} == {None}
    assert {group["step"] for group in groups} == set(range(1, 13))


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium to open the page with")
def test_first_and_last_step_side_by_side(rlhf_folder: Path, tmp_path: Path) -> None:
    """Best and worst of both; nothing that the stage does not measure takes place."""
    text = report.write(rlhf_folder).read_text(encoding="utf-8")
    dump(tmp_path, text)  # as it is, under its own policy: the script must run

    shown = dump(tmp_path, text, after=PRESS)
    assert shown.count("Best of step 1 ") == shown.count("Worst of step 12 ") == 1
    cells = [
        shown.index(f"{name} of step {step} ") for name in ("Best", "Worst") for step in (1, 12)
    ]
    assert cells == sorted(cells)
    rows = (rlhf_folder / "ppo" / "samples.jsonl").read_text().splitlines()
    last = [row for line in rows if (row := json.loads(line))["step"] == 12]
    best = max(last, key=lambda row: row["reward"])
    worst = min(last, key=lambda row: row["reward"])
    at_best, at_worst = (shown[cells[i] :].split("advantage")[0] for i in (1, 3))
    assert best["completion"].strip() in shown[cells[1] : cells[2]]
    assert worst["completion"].strip() in shown[cells[3] :]
    assert f"reward {best['reward']:.3g}" in at_best
    assert f"reward {worst['reward']:.3g}" in at_worst
    for absent in ("Solution", "✓", "✗", "soft_overlong", "Order"):
        assert absent not in shown, absent


def dump(folder: Path, page: str, *, after: str = "") -> str:
    """The words of the completions' browser once the page's script, and then `after`, has run."""
    if after:  # a script of the test's own, which the page's policy would refuse
        page = re.sub(r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", page)
        page = page.replace("</body>", f"<script>{after}</script></body>")
    path = folder / "page.html"
    path.write_text(page, encoding="utf-8")
    command = [str(CHROMIUM), "--headless", "--no-sandbox", "--disable-gpu", "--dump-dom"]
    command += [f"--user-data-dir={folder / 'profile'}", path.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    html = done.stdout
    begin = html.index('class="browser"')
    words = Page(html[html.rindex("<div", 0, begin) : html.index("<script", begin)]).text
    assert "Step 12" in words or "step 12" in words
    return words
