"""Data inside the page: compressed, and inert whatever it holds.

What a model writes is hostile text. It enters the page as gzip in base64, whose alphabet can end no
element, and the page's script shows it as text only. That is also a fifth of the size of JSON:
10,000 completions of 400 characters take about a megabyte and are unpacked in a few hundredths of a
second.
"""

import base64
import gzip
import json
import math


def pack(value: object) -> str:
    """gzip in base64 of the JSON. No clock enters it: equal values give equal text."""
    text = json.dumps(finite(value), separators=(",", ":"), allow_nan=False)
    return base64.b64encode(gzip.compress(text.encode("ascii"), 6, mtime=0)).decode("ascii")


def finite(value: object) -> object:
    """JSON has no NaN and no infinity: they become the words, which the page shows as they are."""
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, dict):
        return {str(key): finite(inner) for key, inner in value.items()}
    return [finite(inner) for inner in value] if isinstance(value, list) else value
