"""Accuracy: is the final answer mathematically equal to the gold solution?

The way of a sample: the answer is extracted (`extract`), compared at once where that is certain
(`compare`), and otherwise handed to math-verify in a killable worker (`symbolic`, `pool`). A gold
is read once, a pair (gold, answer) is judged once.
"""

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from threading import Lock
from typing import Any, ClassVar

from rewards import compare, pool, symbolic
from rewards.core import Outcome, Reward, Score, column, tally, text_of
from rewards.extract import answer_of

Pair = tuple[str, str]
Judged = tuple[compare.Verdict, Outcome]


@dataclass(frozen=True, kw_only=True)
class Accuracy(Reward):
    """1.0 where the answer equals the column `solution`, 0.0 where not, `unparseable` where the
    gold cannot be parsed.

    unparseable: the neutral value of a sample whose gold is no mathematics (outcome "unscorable",
    counted and logged); its `correct` is None. A solution of None does not apply: value None.
    seconds, memory_mb: hard limits of one symbolic comparison; an answer that breaks them earns
    0.0 with the outcome "timeout" or "memory".

    Choices. Percent, thousands and units: see `rewards.numbers`. `x=5` and `5` agree, `x=5` and
    `y=5` do not. An equation (`3x+4y+14=0`) is compared as an equation, up to a factor. A decimal
    must match a fraction to six places. Words (`\\text{even}`, Evelyn) match without regard to
    case. An answer that leaves a sum, limit or integral to be worked out is refused unless the
    gold does. The last answer given counts (`rewards.extract`).
    """

    name: ClassVar[str] = "accuracy"
    needs: ClassVar[tuple[str, ...]] = ("solution",)
    unparseable: float = 0.5
    seconds: float = 2.0
    memory_mb: int = 512

    def __post_init__(self) -> None:
        if self.seconds <= 0 or self.memory_mb <= 0:
            raise ValueError(
                f"seconds and memory_mb must be above 0, not {self.seconds} and {self.memory_mb}"
            )

    def score(self, completions: Sequence[Any], **columns: Any) -> list[Score]:
        solutions = column("solution", len(completions), columns, reward=self.name)
        pairs = [
            None if solution is None else (str(solution), answer_of(text_of(completion)))
            for solution, completion in zip(solutions, completions, strict=True)
        ]
        judged = self._judge(list(dict.fromkeys(pair for pair in pairs if pair is not None)))
        scores = [self._score(None if pair is None else judged[pair]) for pair in pairs]
        tally(self.name, [score.outcome for score in scores])
        return scores

    def _score(self, judged: Judged | None) -> Score:
        if judged is None:
            return Score(value=None, parts={self.name: None})
        verdict, outcome = judged
        if verdict == "unparseable":
            value = self.unparseable
            return Score(value=value, parts={self.name: value}, outcome="unscorable")
        value = float(verdict == "equal")
        return Score(value=value, correct=value, parts={self.name: value}, outcome=outcome)

    def _judge(self, pairs: list[Pair]) -> dict[Pair, Judged]:
        """Judge distinct pairs (solution, answer), those that take symbols together at the end."""
        judged: dict[Pair, Judged] = {}
        waiting: dict[Pair, list[Pair]] = {}
        for solution, answer in pairs:
            gold = compare.read_gold(solution)
            if gold is None:
                judged[solution, answer] = ("unparseable", "ok")
                continue
            reading = compare.fit(gold, answer)
            verdict = compare.at_once(gold, reading)
            if verdict is not None:
                judged[solution, answer] = (verdict, "ok")
            else:
                key = (gold.reading.whole, reading.value)
                waiting.setdefault(key, []).append((solution, answer))
        for key, result in self._symbolic(list(waiting)).items():
            judged.update(dict.fromkeys(waiting[key], result))
        return judged

    def _symbolic(self, pairs: list[Pair]) -> dict[Pair, Judged]:
        """Judge pairs of formulas in the workers; those judged before come from memory."""
        limits = (self.seconds, self.memory_mb)
        judged = {pair: known for pair in pairs if (known := _memory.get((*pair, *limits)))}
        new = [pair for pair in pairs if pair not in judged]
        if new:
            workers = pool.shared(self.memory_mb, preload=("math_verify", "rewards.symbolic"))
            calls = [(pair, {}) for pair in new]
            results = workers.run(symbolic.compare, calls, seconds=self.seconds)
            for pair, result in zip(new, results, strict=True):
                judged[pair] = (result.value or "different", result.outcome)
                if result.outcome == "ok":  # a limit may have been broken by a busy machine
                    _memory.put((*pair, *limits), judged[pair])
        return judged


def equal(pairs: Sequence[Pair]) -> list[bool]:
    """Whether the two answers of each pair, as `extract.answer_of` gives them, are equal.

    Either may be read as the gold, for the gold's form decides what it accepts.
    """
    both = [*pairs, *((second, first) for first, second in pairs)]
    judged = Accuracy()._judge(list(dict.fromkeys(both)))
    verdicts = [judged[pair][0] == "equal" for pair in both]
    return [one or other for one, other in zip(verdicts, verdicts[len(pairs) :], strict=False)]


class _Memory:
    """The last `size` judgements, for the answers a policy gives again and again. Safe from any
    thread.
    """

    def __init__(self, size: int) -> None:
        self.size, self.lock = size, Lock()
        self.entries: OrderedDict[tuple[Any, ...], Judged] = OrderedDict()

    def get(self, key: tuple[Any, ...]) -> Judged | None:
        with self.lock:
            if key in self.entries:
                self.entries.move_to_end(key)
            return self.entries.get(key)

    def put(self, key: tuple[Any, ...], judged: Judged) -> None:
        with self.lock:
            self.entries[key] = judged
            if len(self.entries) > self.size:
                self.entries.popitem(last=False)


_memory = _Memory(20_000)


def forget() -> None:
    """Forget every judgement and reading made so far, in this process; for measuring."""
    _memory.entries.clear()
    compare.read.cache_clear()
    compare.read_gold.cache_clear()
