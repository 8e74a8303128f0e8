"""A server's weights by NCCL, from the first trainer's GPU to the server's, through vLLM's own
trainer side (`vllm.distributed.weight_transfer`, 0.32), which must be installed beside the trainer.

The server is started with --weight-transfer-config '{"backend": "nccl"}'. Nothing of the weights is
left when it ends, so one that was started again does not get them again: the run ends, to be
resumed. NCCL has no time limit of its own: a server that dies while weights are on their way to it
leaves the trainer waiting.
"""

from __future__ import annotations

import socket
from collections.abc import Iterable, Iterator
from typing import Any
from urllib.parse import urlsplit

import torch
from torch import Tensor

from align.rollout.calls import Server
from align.rollout.engine import EngineError
from align.rollout.server_weights import Weights, take_over
from align.rollout.together import is_first, on_first


class NcclSync(Weights):
    """From this process where it is the first; the others only take part in gathering."""

    def __init__(self, server: Server) -> None:
        super().__init__(server)
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
        try:
            if self.engine is None:
                self.engine = self._connected()
            self.engine.send_weights()
        except (RuntimeError, ValueError, OSError) as error:
            raise EngineError(
                f"weights did not reach the server at {self.server.url} by NCCL ({error!r})"
                f"{self.server.advice}"
            ) from error

        def name() -> str:
            self.server.run(lambda: take_over(self.server, version))
            return version

        self.version = on_first(name)

    async def send_again(self) -> None:
        raise EngineError(
            f"the server at {self.server.url} was started again, without the weights that it had: "
            "go on with --resume (--engine.sync folder would have sent them again)"
        )

    def close(self) -> None:
        if self.engine is not None:
            self.engine.shutdown()

    def _connected(self) -> Any:
        from vllm.distributed.weight_transfer.factory import WeightTransferTrainerFactory
        from vllm.distributed.weight_transfer.nccl_engine import NCCLTrainerInitInfo

        answer = on_first(
            lambda: self.server.run(lambda: self.server.once("GET", "/get_world_size"))
        )
        info = NCCLTrainerInitInfo(
            rank=0 if is_first() else 1,
            master_address=_own_address(self.server.url),
            master_port=_free_port(),
            world_size=1 + int(answer["world_size"]),  # the first trainer, then the server's
        )
        client = Client(self.server)
        return WeightTransferTrainerFactory.trainer_init(info, client=client, source=self.source)


class Source:
    """vLLM's `WeightSource` over the pairs of one sync after the other, in bfloat16."""

    def __init__(self) -> None:
        self._described: list[Any] = []
        self._pairs: Iterable[tuple[str, Tensor]] = ()

    def begin(self, weights: Iterable[tuple[str, Tensor]]) -> None:
        """The weights of the next round; each round has the same names and shapes."""
        self._pairs = ((name, tensor.to(torch.bfloat16)) for name, tensor in weights)

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
        return iter(self._pairs)


class Client:
    """vLLM's `VLLMWeightSyncClient` over `Server`, which knows the key and has time limits."""

    def __init__(self, server: Server) -> None:
        self.server = server

    def init_weight_transfer_engine(self, init_info: dict[str, Any]) -> None:
        self._post("/init_weight_transfer_engine", {"init_info": init_info})

    def start_weight_update(self) -> None:
        self._post("/start_weight_update")

    def update_weights(self, update_info: Any) -> None:
        self._post("/update_weights", {"update_info": update_info})

    def finish_weight_update(self, weight_version: str | None = None) -> None:
        self._post("/finish_weight_update", {"weight_version": weight_version})

    def _post(self, path: str, body: Any = None) -> None:
        limit = self.server.time_limit
        self.server.run(lambda: self.server.once("POST", path, body, limit=limit))


def _own_address(url: str) -> str:
    """Of this machine, as the server sees it."""
    address = urlsplit(url)
    with socket.create_connection((address.hostname, address.port or 80), timeout=10) as opened:
        return opened.getsockname()[0]


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("", 0))
        return free.getsockname()[1]
