"""What a stage will need, from its configuration alone: memory by part, time, what would fit.

    shape       a model's sizes, from its config.json
    find        where that file is, or the sizes of models that are known
    load        the largest pack that a process computes
    memory      bytes by part and phase, and the peak
    speed       seconds a step
    cures       the cheapest change that makes it fit
    show        the tables

No weights are read and nothing is computed; torch is not imported.
"""
