"""One seed and one thread: a run is the same every time on one machine."""

from collections.abc import Iterator

import pytest
import torch

SEED = 0


@pytest.fixture(autouse=True)
def one_seed_and_one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with torch.random.fork_rng():
        torch.manual_seed(SEED)
        yield
    torch.set_num_threads(threads)
