"""All stages of a recipe by one command: what is complete is reused, what was interrupted resumes,
what changed runs again with everything below it.

    plan.py      what would run, and why
    launch.py    each stage and evaluation in a process of its own
    record.py    OUT/chain.json, what this call did
    run.py       the command

One run a folder, and none that outlives the command that started it: `align.files.lock`.
"""

from align.chain.run import main

__all__ = ["main"]
