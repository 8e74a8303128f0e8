"""Ours and TRL's trainers measured in turn: same weights, data, threads, precision and batch.

    case.py     what is measured, as plain values that two processes agree on
    wire.py     the orders and answers between the process that asks and the two that work
    side.py     one of the two: forks a process a case
    ours.py     our side: the update alone (our_update.py), runs of the loop (our_runs.py)
    peers.py    TRL's own loop held between two optimizer steps, its trainers (peer_trainers.py)
    scoring.py  a batch judged, ours against math-verify one by one
    start.py    launch to first step
    measure.py  alternations and ratios; same.py: whether both did the same work
    rows.py     what both learn from; configs.py, shapes.py: stages and models
    plan.py     which cases a command line means
    show.py     tables and plot

The two processes hold their models at the same time and work one after the other, so that both are
measured on the machine in the same state. A case whose losses or gradients differ has no ratio.
"""
