"""What a run looks like: `write(out)` makes OUT/report.html, `table(out)` a table for the terminal.

The page is one file without network access: style, script, charts and samples are inside it. It
reads whatever a run folder holds so far, so it can be written while the run goes on.

    folder.py        reads the run folder, forgiving half-written lines
    evaluations.py   each evaluation's shares; comparisons.py pairs them: parents, siblings
    heldout.py       a reward model's pairwise accuracy and calibration
    curves.py        which logged keys make which panel
    canvas.py        an SVG in the page's colours; charts.py draws on it
    samples.py       which completions fit into the page, and how they are embedded
    shares.py        shares and differences in words; headline.py the sentences at the top
    page.py          puts them together; its templates *.html.j2, page.css,
                     and the scripts cards.js, page.js
    terminal.py      the same figures as plain text
"""

from align.report.page import write
from align.report.terminal import table

__all__ = ["table", "write"]
