"""Which writing system a text's letters belong to, by Unicode range; linear in the text."""

import re

_LATIN = "A-Za-zÀ-ÖØ-öø-ɏ\u1e00-\u1effＡ-Ｚａ-ｚªº"
_HAN = "\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U000323af々〇"
_KANA = "\u3040-\u30ff\u31f0-\u31ff\uff66-\uff9f"
_HANGUL = "\u1100-\u11ff\u3130-\u318f\uac00-\ud7af"
_CYRILLIC = "\u0400-\u052f"
_ARABIC = "\u0600-\u06ff\u0750-\u077f\ufb50-\ufdff\ufe70-\ufefe"

CJK = re.compile(f"[{_HAN}{_KANA}{_HANGUL}]+")

_RANGES = {
    **dict.fromkeys(("en", "de", "es", "fr", "it", "pt", "nl", "pl", "tr", "vi", "id"), _LATIN),
    "zh": _HAN,
    "ja": _HAN + _KANA,
    "ko": _HANGUL,
    **dict.fromkeys(("ru", "uk", "bg"), _CYRILLIC),
    **dict.fromkeys(("ar", "fa", "ur"), _ARABIC),
    "hi": "\u0900-\u097f",
    "th": "\u0e00-\u0e7f",
    "el": "\u0370-\u03ff",
    "he": "\u0590-\u05ff",
}
SCRIPTS = {language: re.compile(f"[{ranges}]+") for language, ranges in _RANGES.items()}


def share(text: str, script: re.Pattern[str]) -> float:
    """Share of the text's letters that the script's pattern matches, 0.0 where the text has no
    letters.
    """
    letters = "".join(filter(str.isalpha, text))
    return (len(letters) - len(script.sub("", letters))) / len(letters) if letters else 0.0
