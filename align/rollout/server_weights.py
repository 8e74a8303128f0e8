"""A server's weights, through a folder that trainer and server both see.

The first process writes what all gather, the server loads it, and is told what to call it: its
`weight_version` goes back to vLLM's own when it is started again, so that is seen, and the last
weights are still there to be loaded once more. Written in bfloat16, which the server computes in.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import shutil
from collections.abc import Iterable
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from align.rollout.connection import Connection, GoneError
from align.rollout.engine import EngineError
from align.rollout.server_checks import check_reads
from align.rollout.together import is_first, on_first

SHARD = 2**31  # bytes gathered before they are written
AS_STARTED = "default"  # vLLM's name for the weights that it was started with
UNWRITTEN = (OSError, SafetensorError)  # what a full disk comes as
UNUSED, PAUSE = 20, 0.5  # tries until the server holds no keys and values any more, seconds


class Weights:
    """What the server has been sent: `send` on every process at once, the rest on any."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self.version = ""
        self.run, self.sent = secrets.token_hex(4), 0

    def send(self, weights: Iterable[tuple[str, Tensor]]) -> None:
        raise NotImplementedError

    async def check(self) -> None:
        """Before the first: raises EngineError where none could be sent."""

    async def ready(self) -> None:
        """The server has what was sent last; one that was started since then gets it again.

        Raises EngineError where it has another run's.
        """
        held = await held_version(self.connection)
        if held == AS_STARTED:
            await self.send_again()
        elif held != self.version:
            raise EngineError(
                f"the server at {self.connection.url} has weights of another run ({held}): a "
                "server that takes weights serves one run at a time"
            )

    async def send_again(self) -> None:
        raise NotImplementedError

    async def check_held(self) -> None:
        """Raises GoneError where the server has been started again without our noticing."""
        if await held_version(self.connection) != self.version:
            raise GoneError(
                f"the server at {self.connection.url} lost its weights while it was asked"
            )

    def close(self) -> None:
        """Nothing is sent any more."""

    def next_version(self) -> str:
        self.sent += 1
        return f"{self.run}-{self.sent:06d}"


class FolderSync(Weights):
    """Through `folder`, which is this run's alone; the last weights stay there until the next."""

    def __init__(self, connection: Connection, folder: Path) -> None:
        super().__init__(connection)
        self.folder = folder

    async def check(self) -> None:
        try:
            await check_reads(self.connection, self.folder)
        except UNWRITTEN as error:
            raise EngineError(self._unwritable(error)) from error

    def send(self, weights: Iterable[tuple[str, Tensor]]) -> None:
        version, failed = self.next_version(), ""
        pairs = iter(weights)
        if is_first():
            try:
                write_weights(self.folder / version, pairs)
            except UNWRITTEN as error:
                failed = self._unwritable(error)
        for _ in pairs:  # gathering them takes every process
            pass

        def load() -> str:
            if failed:
                raise EngineError(failed)
            self.connection.run(
                lambda: self.connection.patiently(self._answers, lambda: self._load(version))
            )
            for other in self.folder.iterdir():
                if other.name != version:
                    shutil.rmtree(other, ignore_errors=True)
            return version

        self.version = on_first(load)

    async def send_again(self) -> None:
        await self._load(self.version)

    def close(self) -> None:
        if is_first():
            shutil.rmtree(self.folder, ignore_errors=True)

    async def _load(self, version: str) -> None:
        where = {"weights_path": str(self.folder / version)}
        body = {"method": "reload_weights", "kwargs": where}
        await self.connection.once(
            "POST", "/collective_rpc", body, limit=self.connection.time_limit
        )
        await take_over(self.connection, version)

    async def _answers(self) -> None:
        await held_version(self.connection)

    def _unwritable(self, error: Exception) -> str:
        return (
            f"weights cannot be written to {self.folder} ({error}): give another folder that "
            "trainer and server both see with --engine.sync-folder"
        )


async def held_version(connection: Connection) -> str:
    """What the server calls its weights."""
    return str((await connection.once("GET", "/weight_info")).get("weight_version"))


async def take_over(connection: Connection, version: str) -> None:
    """Drop keys and values of the weights before, and give those that are there now their name.

    What was given up just now holds keys and values a moment longer. Another process may have sent
    the very same weights meanwhile, and use them already.
    """
    for _ in range(UNUSED):
        if (await connection.once("POST", "/reset_prefix_cache")).get("success"):
            await connection.once("POST", "/update_weight_version", {"new_version": version})
            return
        if await held_version(connection) == version:
            return
        await asyncio.sleep(PAUSE)
    raise EngineError(
        f"the server at {connection.url} keeps keys and values of the weights before: others "
        "ask it too, and a server that takes weights serves one run at a time"
    )


def write_weights(folder: Path, weights: Iterable[tuple[str, Tensor]]) -> None:
    """Whole or absent: files of tensors in bfloat16, named as in a Hugging Face folder."""
    partial = folder.with_name(f".{folder.name}.partial")
    partial.mkdir(parents=True)
    try:
        _write_all(partial, weights)
    except UNWRITTEN:
        shutil.rmtree(partial, ignore_errors=True)  # a checkpoint may need the room
        raise
    partial.rename(folder)


def _write_all(folder: Path, weights: Iterable[tuple[str, Tensor]]) -> None:
    shard: dict[str, Tensor] = {}
    size = number = 0
    for name, tensor in weights:
        # A copy: tied weights are written under each of their names.
        shard[name] = tensor.to("cpu", torch.bfloat16, copy=True).contiguous()
        size += shard[name].nbytes
        if size >= SHARD:
            _write(folder, number := number + 1, shard)
            shard, size = {}, 0
    if shard:
        _write(folder, number + 1, shard)


def _write(folder: Path, number: int, shard: dict[str, Tensor]) -> None:
    file = folder / f"model-{number:05d}.safetensors"
    save_file(shard, file)
    with file.open("rb") as opened:
        os.fsync(opened.fileno())  # another machine may read it next
