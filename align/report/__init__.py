"""What a run looks like: `write(out)` makes OUT/report.html, `table(out)` a table for the terminal,
`pictures(out, into)` every chart as SVG and PNG.

The page is one file without network access: style, script, charts and completions are inside it. It
reads whatever a run folder holds so far, so it can be written while the run goes on.

    folder.py        reads the run folder, forgiving half-written lines
    lineage.py       the stage graph: parents, and what the chain did with each stage
    evaluations.py   each evaluation's shares; comparisons.py pairs them: parents, siblings
    overview.py      all stages × all evaluations, and which stage did not help
    heldout.py       a reward model's pairwise accuracy and calibration
    kept.py          what rejection sampling kept, and why not the rest
    curves.py        which logged keys make which panel
    canvas.py        an SVG in the page's colours, or a picture; charts.py draws on it
    samples.py       which completions go in; answers.py those of evaluations, problem by problem;
                     payload.py how they get there
    shares.py        shares and differences in words; headline.py the sentences at the top
    sections.py      what the page shows of one stage
    page.py          puts them together; its templates *.html.j2, page.css, and the scripts:
                     cards.js, store.js, changed.js, browser.js, main.js
    pictures.py      the charts alone, for a paper
    terminal.py      the same figures as plain text
"""

from align.report.page import write
from align.report.pictures import pictures
from align.report.terminal import table

__all__ = ["pictures", "table", "write"]
