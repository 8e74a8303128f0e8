"""What one process does for all."""

import pytest

from align.rollout import EngineError, together


@pytest.mark.parametrize(
    ("error", "kind", "there"),
    [
        (EngineError("the server is gone"), EngineError, "the server is gone"),
        (EngineError(), EngineError, ""),
        (ValueError("never thought of"), ValueError, r"rank 0: ValueError\('never thought of'\)"),
    ],
)
def test_what_goes_wrong_on_one_process_is_raised_on_all(monkeypatch, error, kind, there):
    """By an error that says whether all can go on together."""
    sent = []

    def on_rank(rank, broadcast):
        monkeypatch.setattr(together, "_many", lambda: True)
        monkeypatch.setattr(together.distributed, "get_rank", lambda: rank)
        monkeypatch.setattr(together.distributed, "broadcast_object_list", broadcast)

    def work():
        raise error

    on_rank(0, lambda answer, src: sent.extend(answer))
    with pytest.raises(kind) as first:
        together.on_first(work)
    on_rank(1, lambda answer, src: answer.__setitem__(slice(None), sent))
    with pytest.raises(EngineError, match=f"^{there}$") as other:
        together.on_first(work)
    assert other.value.shared == (kind is EngineError) == getattr(first.value, "shared", False)
