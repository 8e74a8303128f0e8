"""All stages of a recipe by one command: what is complete is reused, what was interrupted resumes,
what changed runs again with everything below it.

    plan.py      what would run, and why
    launch.py    each stage and evaluation in a process of its own
    lock.py      one run a folder; a stage whose chain was killed is waited for
    record.py    OUT/chain.json, what this call did
    run.py       the command
"""

from align.chain.run import main

__all__ = ["main"]
