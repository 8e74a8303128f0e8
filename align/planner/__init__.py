"""What a stage will need, from its configuration alone: memory by part, time, what would fit.

    shape       a model's sizes, from its config.json
    find        where that file is, or the sizes of models that are known
    packs       rows laid out in packs, by their lengths
    load        the heaviest packs of a run
    memory      what a process holds
    phases      bytes by part and phase, and the peak
    speed       seconds a step
    cures       the cheapest change that makes it fit
    show        the tables

No weights are read and nothing is computed; torch comes with the data's rows alone, as it is torch
that shuffles them.
"""
