"""Whether the hub can be reached, and with what: endpoint, proxy, token, offline switches.

Warnings alone: everything works without the hub where models and data are local. No secret is ever
printed: of the token only that there is one, of addresses nothing before an @.
"""

from __future__ import annotations

import os
import re
import threading
import time
from email.utils import parsedate_to_datetime

import httpx
from huggingface_hub import get_token

from align.doctor.asked import Asked
from align.terminal.findings import Findings

SECONDS = 3.0
SWITCHES = ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_DATASETS_OFFLINE")
PROXIES = ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy")
LOCAL = (
    "work without it: --model FOLDER --data rows.jsonl to a stage's script (to scripts/run.py "
    "--STAGE.model FOLDER --STAGE.data rows.jsonl), or recipe smollm2"
)
APART = 300  # seconds between two clocks from which certificates and tokens may fail


def check_hub(asked: Asked, found: Findings) -> None:
    """One request with a short time limit."""
    endpoint = (os.environ.get("HF_ENDPOINT") or "https://huggingface.co").rstrip("/")
    token = _token()
    off = [
        name for name in SWITCHES if os.environ.get(name, "").upper() in ("1", "ON", "YES", "TRUE")
    ]
    if off:
        said = f"switched off by {', '.join(off)}: what is in the cache is used"
        found.warning("hub", said, f"unset {' '.join(off)}")
        return
    through = next((name for name in PROXIES if os.environ.get(name)), "")
    proxy = os.environ.get(through, "")
    about = f"{without_secret(endpoint)}{f' through {without_secret(proxy)}' if proxy else ''}"
    answers: list[httpx.Response | str] = []
    asking = threading.Thread(
        # Looking up a name has no time limit of its own.
        target=lambda: answers.append(_ask(endpoint, token)),
        daemon=True,
    )
    asking.start()
    asking.join(SECONDS + 0.5)
    answer = answers[0] if answers else f"no answer within {SECONDS:.0f} s"
    if isinstance(answer, str):
        tried = f"curl -sSI {without_secret(endpoint)}"
        right = f"unset {through}" if proxy else "behind a proxy: export HTTPS_PROXY=…"
        found.warning(
            "hub", f"{about} cannot be reached: {answer}", f"{tried}; {right}; or {LOCAL}"
        )
        return
    _answered(answer, about, token, found)
    _same_time(answer.headers.get("date"), found)


def _token() -> str | None:
    try:
        return get_token()
    except OSError:  # its folder is none; `disk` says so
        return None


def _ask(endpoint: str, token: str | None) -> httpx.Response | str:
    """The answer, or why there is none."""
    safe = endpoint.startswith(("https://", "http://127.0.0.1", "http://localhost"))
    headers = {"Authorization": f"Bearer {token}"} if token and safe else {}
    try:
        return httpx.get(f"{endpoint}/api/models?limit=1", headers=headers, timeout=SECONDS)
    except (httpx.HTTPError, httpx.InvalidURL, ValueError, OSError, ImportError) as error:
        return without_secret(f"{type(error).__name__}: {error}".splitlines()[0])


def _answered(answer: httpx.Response, about: str, token: str | None, found: Findings) -> None:
    with_token = "with a token" if token else "no token"
    if answer.status_code in (401, 403):
        said = f"{about} refuses {'the token' if token else 'to answer without a token'}"
        found.warning("hub", f"{said} ({answer.status_code})", "hf auth login")
    elif answer.status_code >= 300:
        said = f"{about} answers {answer.status_code}: it may be no model hub"
        found.warning("hub", said, f"unset HF_ENDPOINT, or {LOCAL}")
    else:
        found.note("hub", f"{about} answers, {with_token}")


def _same_time(date: str | None, found: Findings) -> None:
    """The hub's clock against this machine's."""
    if date is None:
        return
    try:
        apart = time.time() - parsedate_to_datetime(date).timestamp()
    except ValueError:
        return
    if abs(apart) > APART:
        where = "ahead of" if apart > 0 else "behind"
        said = f"this machine's clock is {abs(apart) / 60:.0f} minutes {where} the hub's"
        found.warning("clock", said, "sudo timedatectl set-ntp true")


def without_secret(address: str) -> str:
    """An address without user and password."""
    return re.sub(r"//[^/@\s]*@", "//", address)
