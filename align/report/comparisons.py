"""Two models on the same held-out problems: each stage against its parent, siblings against each
other.

A stage's parent is what it starts from (`model="@sft"`), or the models from outside the run.
Stages that start from the same model are siblings, and which of them is the better is a question
of its own: two differences from a common parent do not answer it. Evaluations are paired row by
row, by the data set's row index, and only where both saw the same prompt; the interval of each
alone says nothing about that pairing. One answer a problem makes an exact test; where a problem was
answered several times its share of right answers is what is paired, by a bootstrap over problems.
"""

from dataclasses import dataclass
from itertools import combinations, groupby

from align.evaluation import statistics
from align.evaluation.statistics import Paired
from align.references import layers_of
from align.report import shares
from align.report.evaluations import Evaluation, asked
from align.report.folder import Row, Run

UNTESTED = ("format",)  # how an answer looks: its share tells enough


@dataclass(frozen=True, kw_only=True)
class Change:
    """Paired tests of two evaluations on `n` shared rows; a metric not in both is left out.

    `common`: what two siblings both start from; empty where `before` is the parent of `after`.
    """

    before: Evaluation
    after: Evaluation
    n: int
    tests: dict[str, Paired]
    common: str = ""

    @property
    def name(self) -> str:
        before, after = self.before.label, self.after.label
        return f"{after} against {before}" if self.common else f"{before} → {after}"

    @property
    def data(self) -> str:
        return self.after.data


def changes(evaluations: list[Evaluation], run: Run) -> list[Change]:
    """Of each evaluation, parents first and then siblings, where they share rows."""
    origins = {stage.name: _origin(stage.config) for stage in run.stages}
    found = []
    for _, same in groupby(evaluations, key=lambda e: (e.data, e.name)):
        group = list(same)
        found += [
            _change(before, after)
            for after in group
            if (before := _before(after, group, origins)) is not None
        ]
        found += [
            _change(before, after, common=_common(origins[after.stage]))
            for before, after in _siblings(group, origins)
        ]
    return [change for change in found if change.tests]


def _by_problem(evaluation: Evaluation) -> dict[tuple[str, str], list[Row]]:
    """Its answers by row index and prompt, whose text is hashable whatever the file holds."""
    found: dict[tuple[str, str], list[Row]] = {}
    for row in evaluation.rows:
        if row.get("row") is not None:
            found.setdefault((repr(row["row"]), repr(row.get("prompt"))), []).append(row)
    return found


def _origin(config: Row) -> str:
    model = config.get("model")
    return model if isinstance(model, str) else ""


def _common(origin: str) -> str:
    keep, model = layers_of(origin)
    common = model[1:] if model.startswith("@") else "the same model"
    return f"{keep} layers of {common}" if keep else common


def _before(
    after: Evaluation, group: list[Evaluation], origins: dict[str, str]
) -> Evaluation | None:
    """The evaluation of the nearest evaluated model that this one was trained from."""
    if after.stage is None:
        outside = [e for e in group[: group.index(after)] if e.stage is None]
        return outside[-1] if outside else None
    stage, passed, order = after.stage, set(), list(origins)
    while stage in origins and stage not in passed:
        passed.add(stage)
        origin = origins[stage]
        if not origin:  # a stage without a configuration: the recipe's order is all there is
            return _chosen([e for e in group if e.order < order.index(stage)], after)
        if not origin.startswith("@"):
            return _chosen([e for e in group if e.stage is None], after)
        stage = origin[1:]
        if parents := [e for e in group if e.stage == stage]:
            return _chosen(parents, after)
    return None


def _chosen(candidates: list[Evaluation], after: Evaluation) -> Evaluation | None:
    """Of several, one sampled alike, labelled as its stage is, and the last of these."""
    if not candidates:
        return None
    order = max(e.order for e in candidates)
    latest = [e for e in candidates if e.order == order]
    alike = [e for e in latest if e.temperature == after.temperature] or latest
    return next((e for e in alike if e.label == e.stage), alike[-1])


def _siblings(
    group: list[Evaluation], origins: dict[str, str]
) -> list[tuple[Evaluation, Evaluation]]:
    """One pair for two stages of one origin, and of it evaluations that were sampled alike."""
    trained = {e.stage: e for e in group if e.stage is not None and origins.get(e.stage)}
    pairs = []
    for one, other in combinations(trained, 2):
        if origins[one] != origins[other]:
            continue
        for temperature in dict.fromkeys(e.temperature for e in group if e.stage == other):
            alike = [e for e in group if e.temperature == temperature]
            before = _chosen([e for e in alike if e.stage == one], trained[other])
            after = _chosen([e for e in alike if e.stage == other], trained[other])
            if before is not None and after is not None:
                pairs.append((before, after))
    return pairs


def _change(before: Evaluation, after: Evaluation, *, common: str = "") -> Change:
    earlier, later = _by_problem(before), _by_problem(after)
    pairs = [(earlier[key], answers) for key, answers in later.items() if key in earlier]
    tests = {}
    for metric in (name for name in before.proportions if name in after.proportions):
        test = _test(pairs, metric) if metric not in UNTESTED else None
        if test is not None:
            tests[metric] = test
    return Change(before=before, after=after, n=len(pairs), tests=tests, common=common)


def _test(pairs: list[tuple[list[Row], list[Row]]], metric: str) -> Paired | None:
    """Over the problems that both answers were judged on; None where there are too few."""
    judged = [(_verdicts(b, metric), _verdicts(a, metric)) for b, a in pairs]
    judged = [(b, a) for b, a in judged if b and a]
    if not judged:
        return None
    if all(len(b) == len(a) == 1 for b, a in judged):
        return statistics.paired([b[0] for b, _ in judged], [a[0] for _, a in judged])
    if len(judged) < 2:
        return None
    means = [(sum(b) / len(b), sum(a) / len(a)) for b, a in judged]
    return statistics.paired_means([b for b, _ in means], [a for _, a in means])


def _verdicts(answers: list[Row], metric: str) -> list[int]:
    return [row[metric] for row in answers if row.get(metric) in (0, 1)]


def lines(found: list[Change]) -> list[str]:
    """The tests in sentences, for the terminal."""
    return [
        f"{change.name} ({asked(change.after)}, {metric}): {shares.points(test)} "
        f"[{shares.interval(test)}], {test.better} better, {test.worse} worse, "
        f"{shares.p_value(test)}: {shares.verdict(test, metric)}"
        for change in found
        for metric, test in change.tests.items()
    ]
