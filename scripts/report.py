"""Write the page of a run folder again, at any time, and its charts as pictures for a paper.

    python scripts/report.py runs/smollm2-r1
    python scripts/report.py runs/smollm2-r1 --pictures figures

The page is RUN/report.html; the pictures are SVG and PNG.
"""

import dataclasses
from pathlib import Path

import tyro

from align.cli import fail


@dataclasses.dataclass(frozen=True, kw_only=True)
class Report:
    """Of which run folder."""

    run: tyro.conf.Positional[Path]
    """The folder that a run writes to (--out of the other scripts)."""
    pictures: Path | None = None
    """Write every chart here as SVG and PNG."""


def main() -> None:
    asked = tyro.cli(Report, description=__doc__)
    from align import report
    from align.files.disk import FolderError, writing

    try:
        page = report.write(asked.run)
        print(report.table(asked.run))
        if asked.pictures is not None:
            with writing(asked.pictures):
                files = report.pictures(asked.run, asked.pictures)
            print(f"{len(files)} pictures in {asked.pictures}")
    except (FileNotFoundError, FolderError) as error:
        fail(str(error))
    print(f"report: {page}")


if __name__ == "__main__":
    main()
