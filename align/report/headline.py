"""The sentences at the top of the page: what the run came to, each with how sure that is."""

from collections.abc import Mapping

from align.report import heldout, shares
from align.report.comparisons import Change
from align.report.evaluations import asked
from align.report.heldout import Heldout


def sentences(reward_models: Mapping[str, Heldout | None], changes: list[Change]) -> list[str]:
    """One for each reward model, and of each data set those on the stages trained last.

    reward_models: by stage; None for a stage that has no held-out pairs.
    """
    said = [heldout.sentence(stage, found) for stage, found in reward_models.items() if found]
    for name in dict.fromkeys(asked(change.after) for change in changes):
        said += [_sentence(change) for change in _latest(changes, name)]
    return said


def _latest(changes: list[Change], name: str) -> list[Change]:
    """The last stage against its parent, its siblings against theirs, and these with each other."""
    group = [change for change in changes if asked(change.after) == name]
    trained = [change for change in group if not change.common]
    if not trained:
        return group
    last = [change for change in trained if change.before is trained[-1].before]
    labels = {change.after.label for change in last}
    return last + [c for c in group if c.common and {c.before.label, c.after.label} <= labels]


def _sentence(change: Change) -> str:
    metric = "strict" if "strict" in change.tests else next(iter(change.tests))
    test = change.tests[metric]
    before, after = change.before, change.after
    figures = (
        f"{shares.points(test)}, 95 % interval {shares.interval(test)}, {shares.p_value(test)}, "
        f"paired over {test.n:,} problems"
    )
    if change.common:
        return (
            f"{after.label} against {before.label}, both from {change.common}: "
            f"{shares.verdict(test, metric)} on {asked(change.after)} ({figures})."
        )
    now, then = (f"{100 * e.proportions[metric].mean:.1f} %" for e in (after, before))
    did = (
        f"{after.label} answers {now} of {asked(change.after)} strictly right"
        if metric == "strict"
        else f"{after.label}: {metric.replace('_', ' ')} {now} on {asked(change.after)}"
    )
    return f"{did}, {before.label} {then}: {shares.verdict(test, metric)} ({figures})."
