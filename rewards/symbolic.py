"""Symbolic comparison by math-verify; called in a worker only, for it may hang or eat memory.

Departs from plain math-verify: golds are wrapped (unwrapped ones misjudge a fifth of MATH), its
signal-based time limits are off (the pool's kill holds in any thread), and a verdict of "equal" on
two numbers is held to relative precision, for math-verify rounds absolutely and calls 1/2^{99} and
1/2^{98} equal. math-verify, and sympy with it, is imported in the functions: the parent only needs
their names.
"""

import functools
import logging
import resource
from typing import Any

RELATIVE_PRECISION = 1e-5


def compare(gold: str, answer: str) -> str:
    """ "equal", "different", or "unparseable" where the gold is. Not symmetric: the gold's form
    decides.
    """
    from math_verify import verify

    golds = _parsed(gold)
    if not golds:
        return "unparseable"
    answers = _parsed(answer)
    if verify(golds, answers, timeout_seconds=None):
        return "equal" if _same_size(golds[0], answers[0]) else "different"
    if answers and _equal_roots(golds[0], answers[0]):
        return "equal"
    _raise_if_starved()
    return "different"


def warm() -> None:
    """Compare one pair of each kind, so that what math-verify loads and caches on first use is
    there when workers fork.
    """
    for gold, answer in (
        ("x^2+1", "(x+1)^2-2x"),
        ("\\frac{1}{2}", "\\sqrt{3}"),
        ("(1,2)", "(1,3)"),
        ("[1,2)", "1 \\le x < 2"),
        ("2x+y=1", "y=1-2x"),
    ):
        compare(gold, answer)


def _raise_if_starved() -> None:
    """Raise MemoryError where this process came near its limit: math-verify takes its own
    MemoryErrors for "different".
    """
    limit = resource.getrlimit(resource.RLIMIT_AS)[0]
    if limit == resource.RLIM_INFINITY:
        return
    with open("/proc/self/status") as file:
        peak = next(line.split()[1] for line in file if line.startswith("VmPeak"))
    if int(peak) * 1024 > 0.9 * limit:
        raise MemoryError


@functools.lru_cache(maxsize=256)
def _parsed(text: str) -> list[Any]:
    """math-verify's reading of the whole formula as LaTeX; empty if it has none.

    Its reading of plain expressions is not asked for: it takes the first number of a formula it
    cannot parse.
    """
    from math_verify import LatexExtractionConfig, parse

    logging.getLogger("math_verify").setLevel(
        logging.ERROR
    )  # it warns that its time limits are off
    config = LatexExtractionConfig(boxed_match_priority=0)
    wrapped = rf"\boxed{{{text.replace('**', '^')}}}"
    return parse(wrapped, [config], fallback_mode="no_fallback", parsing_timeout=None)


def _same_size(gold: Any, answer: Any) -> bool:
    """False for two numbers whose ratio is not 1 (nor 100 or 1/100: a percentage); True for
    anything else.
    """
    if not all(getattr(x, "is_number", False) and not x.is_zero for x in (gold, answer)):
        return True
    ratio = abs((gold.doit() / answer.doit()).evalf(15))
    return any(abs(ratio / scale - 1) <= RELATIVE_PRECISION for scale in (1, 100, 0.01))


def _equal_roots(gold: Any, answer: Any) -> bool:
    """Whether two expressions with roots are equal for positive values of their symbols: sqrt(1/n)
    and 1/sqrt(n).

    math-verify takes symbols as real, where those two differ. Absolute values stay what they are.
    """
    from sympy import Abs, Expr, Pow, Symbol, simplify

    if (
        not (isinstance(gold, Expr) and isinstance(answer, Expr))
        or gold.has(Abs)
        or answer.has(Abs)
    ):
        return False
    if gold.free_symbols != answer.free_symbols or not gold.free_symbols:
        return False
    for side in (gold, answer):  # or sqrt(x^2) would be x
        if all(power.exp.is_integer or not power.free_symbols for power in side.atoms(Pow)):
            return False
    positive = {s: Symbol(s.name, positive=True) for s in gold.free_symbols}
    return bool(simplify((gold - answer).subs(positive)).is_zero)
