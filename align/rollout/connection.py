"""The connection to a vLLM server: each call has a time limit, and what goes wrong is said with
the address.

A server that does not answer may be on its way back: `Connection.patiently` begins work
again, for as long as `--engine.patience` allows. A server that wants a key gets the one in
ALIGN_SERVER_KEY, and no other service's key.
"""

from __future__ import annotations

import asyncio
import math
import os
import signal
import threading
import time
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, TypeVar
from urllib.parse import urlsplit

import httpx

from align.config import Engine as EngineConfig
from align.rollout.engine import EngineError
from align.terminal.progress import console

T = TypeVar("T")
CONNECT = 10.0  # seconds to reach the server, and for everything that is not long work
PAUSES = (0.5, 8.0)  # seconds between two tries: the first, doubled up to the last
OUTAGES = 3  # times that it may go away within one piece of work


class GoneError(EngineError):
    """The server cannot be reached, does not answer in time, or is out of order."""


class NotOfferedError(EngineError):
    """The server does not have that route."""


class Connection:
    """Where a server listens, and how it is talked to. One piece of work runs at a time."""

    def __init__(self, engine: EngineConfig) -> None:
        self.url = engine.url.rstrip("/").removesuffix("/v1")
        self.time_limit, self.patience = engine.time_limit, engine.patience
        self.advice = ""  # what to do when it is gone for good
        self._closed = False
        self._answered = 0.0  # when it last did
        self._running: tuple[asyncio.AbstractEventLoop, asyncio.Task[Any]] | None = None

    def run(self, work: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """The work's result, from any thread. However it ends, by an error, by SIGTERM or by
        `close`, calls under way are given up at once.
        """
        while True:
            try:
                return asyncio.run(self._stoppable(work()))
            except asyncio.CancelledError:
                if self._closed:
                    raise EngineError("what was asked of the server was given up") from None
                # Now the process's own handler: it breaks in here, or it has us work after all.
                signal.raise_signal(signal.SIGTERM)

    def close(self) -> None:
        """Give up what another thread is running."""
        self._closed = True
        if self._running is not None:
            loop, task = self._running
            loop.call_soon_threadsafe(task.cancel)

    async def patiently(
        self, ready: Callable[[], Awaitable[None]], work: Callable[[], Awaitable[T]]
    ) -> T:
        """The work's result, once `ready`, which asks the server something, has come back. Where
        the server is gone in between, both are begun again; raises GoneError when it stays away for
        longer than its patience. One that then was at work for longer than that is given the whole
        patience again, OUTAGES times in all: what it is asked may be what ends it.
        """
        outages, since, back, pause, said = 1, 0.0, math.inf, PAUSES[0], False
        while True:
            try:
                await ready()
                back = time.monotonic()
                if said:
                    console.print(f"{self.url} is back after {back - since:.0f} s")
                    said = False
                return await work()
            except GoneError as error:
                now = time.monotonic()
                if since and self._answered - back > self.patience and outages < OUTAGES:
                    outages, since, pause = outages + 1, 0.0, PAUSES[0]
                since, back = since or now, math.inf
                if now - since + pause > self.patience:
                    waited = f" (waited {now - since:.0f} s; --engine.patience)"
                    waited = waited if self.patience else ""
                    raise GoneError(f"{error}{waited}{self.advice}") from error
                if not said:
                    console.print(f"{error}; trying again for {self.patience:g} s")
                    said = True
                await asyncio.sleep(pause)
                pause = min(2 * pause, PAUSES[1])

    def client(self, limit: float | None = None) -> httpx.AsyncClient:
        """limit: seconds for an answer, by default those of long work."""
        key = os.environ.get("ALIGN_SERVER_KEY")
        return httpx.AsyncClient(
            base_url=self.url,
            timeout=httpx.Timeout(limit or self.time_limit, connect=CONNECT),
            headers={"Authorization": f"Bearer {key}"} if key else {},
        )

    async def once(
        self, method: str, path: str, body: Any = None, *, limit: float = CONNECT
    ) -> dict[str, Any]:
        """One call on a connection of its own."""
        async with self.client(limit) as client:
            return await self.call(client, method, path, body)

    async def call(
        self, client: httpx.AsyncClient, method: str, path: str, body: Any = None
    ) -> dict[str, Any]:
        try:
            answer = await client.request(method, path, json=body)
        except httpx.ConnectError as error:
            raise GoneError(
                f"no server answers at {self.url} ({error}): start one, or give its address with "
                "--engine.url"
            ) from error
        except httpx.TimeoutException as error:
            raise GoneError(
                f"{self.url}{path} did not answer in time ({type(error).__name__}): see whether "
                "the server is well, or raise --engine.time-limit"
            ) from error
        except httpx.HTTPError as error:
            raise GoneError(f"{self.url}{path} broke off: {error!r}") from error
        content = _content(answer, f"{self.url}{path}")
        self._answered = time.monotonic()
        return content

    async def _stoppable(self, work: Coroutine[Any, Any, T]) -> T:
        """The work, cancelled by SIGTERM where this is the main thread.

        The process's own handler may raise, and what is raised inside the event loop can be lost in
        one of its callbacks. Another thread gets no signals: `close` cancels there.
        """
        task, loop = asyncio.current_task(), asyncio.get_running_loop()
        assert task is not None
        self._running = (loop, task)
        if self._closed:
            task.cancel()
        main = threading.current_thread() is threading.main_thread()
        usual = signal.getsignal(signal.SIGTERM)
        if main:
            loop.add_signal_handler(signal.SIGTERM, task.cancel)
        try:
            return await work
        finally:
            self._running = None
            if main:
                loop.remove_signal_handler(signal.SIGTERM)
                signal.signal(signal.SIGTERM, usual)


def address(url: str) -> tuple[str, int]:
    """Host and port of a server."""
    parts = urlsplit(url)
    return parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80)


def _content(answer: httpx.Response, where: str) -> dict[str, Any]:
    if answer.status_code in (404, 405):
        raise NotOfferedError(
            f"{where} is not there, though something answers: give a vLLM server's address with "
            "--engine.url"
        )
    if answer.is_error:
        kind = GoneError if answer.is_server_error else EngineError
        raise kind(f"{where} answered {answer.status_code}: {answer.text[:500]}")
    if not answer.content:
        return {}
    try:
        content = answer.json()
    except ValueError as error:
        raise EngineError(f"{where} answered no JSON: is it a vLLM server's address?") from error
    if not isinstance(content, dict):
        raise EngineError(f"{where} answered no JSON object: is it a vLLM server's address?")
    return content
