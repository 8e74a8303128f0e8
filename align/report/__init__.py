"""What a run looks like: `write(out)` makes OUT/report.html, `table(out)` a table for the terminal.

The page is one file without network access: style, script, charts and samples are inside it. It
reads whatever a run folder holds so far, so it can be written while the run goes on.

    folder.py        reads the run folder, forgiving half-written lines
    evaluations.py   before/after: intervals and paired tests
    curves.py        which logged keys make which panel; charts.py draws them
    samples.py       which completions fit into the page, and how they are embedded
    page.py          puts them together; page.html.j2, page.css, page.js
"""

from align.report.evaluations import table
from align.report.page import write

__all__ = ["table", "write"]
