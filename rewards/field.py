"""Arithmetic in the field of p^2 elements, p = 3 mod 4 a prime of 61 bits, where closed forms are
compared without sympy.

i is the field's root of -1, every prime number has its square root there, and pi and each letter
stand for a fixed random element. That is a homomorphism of rings from the expressions, so two with
different images differ for certain. Two with equal images are equal but for a chance of degree / p,
below 1e-13 (Schwartz 1980, "Fast probabilistic algorithms for verification of polynomial
identities"; pi is transcendental, so it is a letter like any other), or unless p divides what they
differ by; p is no prime that anyone writes.
"""

import math
import random
from functools import lru_cache
from typing import NamedTuple

_P = 1324774614031933531
_MAX_DEGREE, _MAX_RADICAND = 100_000, 10**12
_SMALL_PRIMES = [n for n in range(2, 1000) if all(n % k for k in range(2, math.isqrt(n) + 1))]


class Unreadable(Exception):
    """An expression that is outside the grammar, or beyond a limit."""


class Value(NamedTuple):
    """The element re + im * i.

    kind: 2 where the text has an i, else 0 for rational numbers and 1 for all others. degree: at
    most that, as a fraction of polynomials in the letters and pi.
    """

    re: int
    im: int
    kind: int = 0
    degree: int = 0


def _letters() -> dict[str, Value]:
    draw = random.Random("letters")
    names = ["\\pi", *"abcdefghjklmnopqrstuvwxyz"]
    return {name: Value(draw.randrange(_P), draw.randrange(_P), 1, 1) for name in names}


LETTERS = {**_letters(), "i": Value(0, 1, 2)}


def number(n: int) -> Value:
    return Value(n % _P, 0)


def plus(x: Value, y: Value, sign: int) -> Value:
    """x + sign * y."""
    degree = max(x.degree, y.degree) if not (x.degree and y.degree) else x.degree + y.degree
    kind = max(x.kind, y.kind)
    return Value((x.re + sign * y.re) % _P, (x.im + sign * y.im) % _P, kind, degree)


def times(x: Value, y: Value) -> Value:
    """Raises Unreadable for i times i, which math-verify takes for the square of a letter."""
    if x.kind == y.kind == 2:
        raise Unreadable
    re, im = x.re * y.re - x.im * y.im, x.re * y.im + x.im * y.re
    return Value(re % _P, im % _P, max(x.kind, y.kind), x.degree + y.degree)


def power(base: Value, exponent: int) -> Value:
    """Raises ZeroDivisionError for what is, or seems to be, a division by zero."""
    degree = base.degree * abs(exponent)
    if (base.kind == 2 and exponent != 1) or degree > _MAX_DEGREE:
        raise Unreadable
    re, im = base.re, base.im
    if exponent < 0:
        norm = (re * re + im * im) % _P
        if norm == 0:
            raise ZeroDivisionError
        inverse = pow(norm, -1, _P)
        re, im = re * inverse % _P, -im * inverse % _P
    if im == 0:
        return Value(pow(re, abs(exponent), _P), 0, base.kind, degree)
    x, y = 1, 0
    for bit in bin(abs(exponent))[2:]:
        x, y = (x * x - y * y) % _P, 2 * x * y % _P
        if bit == "1":
            x, y = (x * re - y * im) % _P, (x * im + y * re) % _P
    return Value(x, y, base.kind, degree)


@lru_cache(maxsize=4096)
def root(over: int, under: int) -> Value:
    """The square root of a fraction, from those of its prime numbers.

    Raises Unreadable where they are not found at once.
    """
    left = over * under
    if left > _MAX_RADICAND:
        raise Unreadable
    if under == 0:
        raise ZeroDivisionError
    whole, primes = 1, []
    for prime in _SMALL_PRIMES:
        if left < prime:
            break
        while left % (prime * prime) == 0:
            left //= prime * prime
            whole *= prime
        if left % prime == 0:
            left //= prime
            primes.append(prime)
    if math.isqrt(left) ** 2 == left:
        whole *= math.isqrt(left)
    elif left < _SMALL_PRIMES[-1] ** 2:  # then it is a prime
        primes.append(left)
    else:
        raise Unreadable
    result = Value(whole * pow(under, -1, _P) % _P, 0, 1 if primes else 0)
    for prime in primes:
        result = times(result, _root_of_prime(prime))
    return result


def _root_of_prime(prime: int) -> Value:
    """As p = 3 mod 4, either n or -n is the square of n^((p+1)/4)."""
    found = pow(prime, (_P + 1) // 4, _P)
    return Value(found, 0, 1) if found * found % _P == prime else Value(0, found, 1)
