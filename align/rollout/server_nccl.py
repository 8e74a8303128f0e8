"""A server's weights by NCCL, from the first trainer's GPU to the server's, through vLLM's own
trainer side (`vllm.distributed.weight_transfer`, 0.32), which must be installed beside the trainer.

The server is started with --weight-transfer-config '{"backend": "nccl"}'. Nothing of the weights is
left when it ends, so one that was started again does not get them again: the run ends, to be
resumed. NCCL has no time limit of its own, and a server that dies while weights are on their way to
it leaves the sender waiting for good: so it sends in a thread, which is left behind.
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
from torch import Tensor

from align.rollout.connection import Connection, address
from align.rollout.engine import EngineError
from align.rollout.server_weights import Weights, take_over
from align.rollout.together import is_first, on_first


class NcclSync(Weights):
    """From this process where it is the first; the others only take part in gathering."""

    def __init__(self, connection: Connection) -> None:
        super().__init__(connection)
        if not torch.cuda.is_available():
            raise EngineError(
                "--engine.sync nccl goes from GPU to GPU, and there is none here: use "
                "--engine.sync folder"
            )
        self.source = Source()
        self.engine: Any = None

    def send(self, weights: Iterable[tuple[str, Tensor]]) -> None:
        version = self.next_version()
        self.source.begin(weights)
        # An engine that failed or is still sending cannot be used any more, nor shut down.
        connect, self.engine = self._connection(), None

        def work() -> Any:
            engine = connect()
            engine.send_weights()
            return engine

        if is_first():
            engine, failure = _within(self.connection.time_limit, work)
            self.source.finish()
        else:
            engine, failure = work(), None

        def name() -> str:
            if failure is not None:
                raise EngineError(
                    f"weights did not reach the server at {self.connection.url} by NCCL "
                    f"({failure!r}){self.connection.advice}"
                ) from failure
            self.connection.run(lambda: take_over(self.connection, version))
            return version

        self.version = on_first(name)
        self.engine = engine

    async def send_again(self) -> None:
        raise EngineError(
            f"the server at {self.connection.url} was started again, without the weights that it "
            "had: go on with --resume (--engine.sync folder would have sent them again)"
        )

    def close(self) -> None:
        if self.engine is not None:
            self.engine.shutdown()

    def _connection(self) -> Callable[[], Any]:
        """What gives vLLM's trainer side: the one that there is, or one that begins anew."""
        if (engine := self.engine) is not None:
            return lambda: engine
        from vllm.distributed.weight_transfer.factory import WeightTransferTrainerFactory
        from vllm.distributed.weight_transfer.nccl_engine import NCCLTrainerInitInfo

        where = on_first(self._meeting)
        info = NCCLTrainerInitInfo(rank=0 if is_first() else 1, **where)
        client, source = Client(self.connection), self.source
        return lambda: WeightTransferTrainerFactory.trainer_init(info, client=client, source=source)

    def _meeting(self) -> dict[str, Any]:
        """Where the first trainer and the server's processes find together."""
        answer = self.connection.run(lambda: self.connection.once("GET", "/get_world_size"))
        try:
            return {
                "master_address": _own_address(self.connection.url),
                "master_port": _free_port(),
                "world_size": 1 + int(answer["world_size"]),
            }
        except (OSError, KeyError, ValueError) as error:
            raise EngineError(
                f"no way for weights to the server at {self.connection.url} by NCCL ({error!r})"
            ) from error


class Source:
    """vLLM's `WeightSource` over the pairs of one sync after the other, in bfloat16."""

    def __init__(self) -> None:
        self._described: list[Any] = []
        self._gathered: Iterator[tuple[str, Tensor]] = iter(())
        self._pairs = self._gathered

    def begin(self, weights: Iterable[tuple[str, Tensor]]) -> None:
        """The weights of the next round; each round has the same names and shapes."""
        self._gathered = ((name, tensor.to(torch.bfloat16)) for name, tensor in weights)
        self._pairs = self._gathered

    def metadata(self) -> list[Any]:
        """Asked before each round. Shapes are known once all are gathered: the first time they wait
        in memory until they are sent.
        """
        from vllm.distributed.weight_transfer.base import ParamMeta

        if not self._described:
            kept = [(name, tensor.cpu()) for name, tensor in self._pairs]
            self._described = [ParamMeta(name, one.dtype, tuple(one.shape)) for name, one in kept]
            self._pairs = ((name, one.cuda()) for name, one in kept)
        return self._described

    def __iter__(self) -> Iterator[tuple[str, Tensor]]:
        return self._pairs

    def finish(self) -> None:
        """Gather what is left, however far the round went: it takes every process."""
        for _ in self._gathered:
            pass


class Client:
    """vLLM's `VLLMWeightSyncClient` over `Connection`, which knows the key and has time limits."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection

    def init_weight_transfer_engine(self, init_info: dict[str, Any]) -> None:
        self._post("/init_weight_transfer_engine", {"init_info": init_info})

    def start_weight_update(self) -> None:
        self._post("/start_weight_update")

    def update_weights(self, update_info: Any) -> None:
        self._post("/update_weights", {"update_info": update_info})

    def finish_weight_update(self, weight_version: str | None = None) -> None:
        self._post("/finish_weight_update", {"weight_version": weight_version})

    def _post(self, path: str, body: Any = None) -> None:
        limit = self.connection.time_limit
        self.connection.run(lambda: self.connection.once("POST", path, body, limit=limit))


def _within(limit: float, work: Callable[[], Any]) -> tuple[Any, Exception | None]:
    """The work's result and None, or None and what it raised: TimeoutError after `limit` seconds,
    at which it is left to itself.
    """
    results: list[Any] = []
    failures: list[Exception] = []
    device = torch.cuda.current_device()

    def run() -> None:
        torch.cuda.set_device(device)  # each thread has its own
        try:
            results.append(work())
        except Exception as error:
            failures.append(error)

    thread = threading.Thread(target=run, name="sending weights", daemon=True)
    thread.start()
    thread.join(limit)
    if thread.is_alive():
        said = f"not in {limit:g} s: see whether the server is well, or raise --engine.time-limit"
        return None, TimeoutError(said)
    return (None, failures[0]) if failures else (results[0], None)


def _own_address(url: str) -> str:
    """Of this machine, as the server sees it."""
    with socket.create_connection(address(url), timeout=10) as opened:
        return opened.getsockname()[0]


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("", 0))
        return free.getsockname()[1]
