"""The killable pool: limits that hold, neighbours that do not notice, order, threads, parents that
die.
"""

import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pool_functions as functions
import pytest

import rewards
from rewards import core
from rewards import pool as pool_module
from rewards.pool import Pool, shared

pytestmark = pytest.mark.alone

MISBEHAVIOUR = {
    "sleep": "timeout",
    "power": "timeout",
    "pattern": "timeout",
    "stop": "timeout",
    "memory": "memory",
    "leave": "crash",
    "exit": "crash",
    "kill": "crash",
    "raise": "crash",
    "print": "ok",
    "fork": "ok",
    "nothing": "ok",
}


@pytest.fixture(scope="module")
def pool() -> Iterator[Pool]:
    pool = Pool(workers=2, memory_mb=256)
    yield pool
    pool.close()


def calls(*arguments: object) -> list[tuple[tuple[object, ...], dict[str, object]]]:
    return [((argument,), {}) for argument in arguments]


def gone(pid: int, seconds: float = 3.0) -> bool:
    """Whether the process ends within that time; a zombie has ended."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except FileNotFoundError:
            return True
        if state == "Z":
            return True
        time.sleep(0.05)
    return False


def test_every_misbehaviour_is_an_outcome_of_its_own_call(
    pool: Pool, capfd: pytest.CaptureFixture[str]
) -> None:
    pool.run(functions.add_one, calls(1), seconds=1.0)  # started
    began = time.perf_counter()
    results = pool.run(functions.misbehave, calls(*MISBEHAVIOUR), seconds=0.5)
    elapsed = time.perf_counter() - began
    assert [r.outcome for r in results] == list(MISBEHAVIOUR.values())
    assert [r.value for r in results[-3:]] == ["print", "fork", "nothing"]
    assert results[list(MISBEHAVIOUR).index("raise")].error == "ValueError"
    # Four time limits on two workers; nothing else waits.
    assert elapsed < 4 * 0.5 + 1.0
    assert capfd.readouterr() == ("", "")


def test_a_hostile_call_costs_its_neighbours_nothing(pool: Pool) -> None:
    words = [str(i) for i in range(200)]
    began = time.perf_counter()
    results = pool.run(functions.misbehave, calls("sleep", *words, "power"), seconds=1.0)
    assert time.perf_counter() - began < 2 * 1.0 + 1.0
    assert [r.outcome for r in results] == ["timeout", *["ok"] * 200, "timeout"]
    assert [r.value for r in results[1:-1]] == words


def test_the_second_process_of_a_call_that_forks_answers_to_nobody(pool: Pool) -> None:
    """Else its answers would be taken for those of later calls."""
    words = ["fork", *(str(i) for i in range(20))]
    results = pool.run(functions.misbehave, calls(*words), seconds=2.0)
    time.sleep(0.3)  # until both are back
    later = pool.run(functions.add_one, calls(*range(20)), seconds=2.0)
    assert [r.value for r in results] == words
    assert [r.value for r in later] == list(range(1, 21))


def test_a_worker_ends_with_the_process_it_was_forked_from() -> None:
    """In the midst of what no Python code could be interrupted in."""
    pool = Pool(workers=1, memory_mb=256)
    pool.run(functions.add_one, calls(1), seconds=1.0)
    worker = pool.idle[0].pid
    with ThreadPoolExecutor(1) as threads:
        result = threads.submit(pool.run, functions.misbehave, calls("power"), seconds=20.0)
        time.sleep(0.3)
        pool.zygote.process.kill()
        assert gone(worker)
        assert [r.outcome for r in result.result()] == ["crash"]
    pool.close()


def test_coroutine_functions(pool: Pool) -> None:
    results = pool.run(functions.add_one_later, calls(1, 2, 3), seconds=2.0)
    assert [r.value for r in results] == [2, 3, 4]


def test_identical_calls_are_made_once(pool: Pool, tmp_path: Path) -> None:
    log = tmp_path / "calls"
    words = ["a", "b", "a", "c", "b", "a"]
    results = pool.run(functions.record, [((str(log), w), {}) for w in words], seconds=2.0)
    assert [r.value for r in results] == words
    assert sorted(log.read_text().split()) == ["a", "b", "c"]


def test_many_threads_at_once(pool: Pool) -> None:
    def work(start: int) -> list[object]:
        return [
            r.value
            for r in pool.run(functions.add_one, calls(*range(start, start + 50)), seconds=5)
        ]

    with ThreadPoolExecutor(8) as threads:
        answers = list(threads.map(work, range(0, 800, 100)))
    assert answers == [list(range(s + 1, s + 51)) for s in range(0, 800, 100)]


def test_what_a_function_leaves_running_is_killed(pool: Pool, tmp_path: Path) -> None:
    file = tmp_path / "pid"
    (result,) = pool.run(functions.leave_process, calls(str(file)), seconds=2.0)
    assert result.outcome == "ok"
    assert gone(int(file.read_text()))


def test_functions_without_a_module(pool: Pool) -> None:
    offset = 5
    results = pool.run(lambda x: x + offset, calls(1, 2), seconds=2.0)
    assert [r.value for r in results] == [6, 7]


def test_what_cannot_be_sent_is_explained(pool: Pool) -> None:
    with pytest.raises(TypeError, match="pass plain values"):
        pool.run(functions.add_one, calls(threading.Lock()), seconds=1.0)


def test_it_restarts_after_its_processes_were_killed() -> None:
    pool = Pool(workers=1, memory_mb=256)
    assert pool.run(functions.add_one, calls(1), seconds=1.0)[0].value == 2
    pool.zygote.process.kill()
    pool.zygote.process.wait()
    assert pool.run(functions.add_one, calls(2), seconds=1.0)[0].value == 3
    pool.close()


def test_overhead_of_a_call(pool: Pool) -> None:
    pool.run(functions.add_one, calls(*range(4)), seconds=1.0)
    best = []
    for repeat in range(5):
        began = time.perf_counter()
        pool.run(functions.add_one, calls(*range(1000 * repeat, 1000 * repeat + 128)), seconds=5.0)
        best.append(time.perf_counter() - began)
    assert min(best) / 128 < 0.5e-3  # measured: 0.04 ms


PARENT = textwrap.dedent(
    """
    import signal, sys, time
    signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored below a shell's `&`
    sys.path.insert(0, sys.argv[1])
    import pool_functions
    from rewards.pool import Pool
    import threading
    pool = Pool(workers=1, memory_mb=256)
    pool.run(pool_functions.add_one, [((1,), {})], seconds=5)
    print(pool.zygote.process.pid, pool.idle[0].pid, flush=True)
    pool.run(pool_functions.misbehave, [(("power",), {})], seconds=60)
    """
)


@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_workers_die_with_their_parent(end: signal.Signals) -> None:
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT, str(Path(__file__).parent)],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    pids = [int(pid) for pid in parent.stdout.readline().split()]
    time.sleep(0.3)  # the worker is deep in a power of big integers
    os.kill(parent.pid, end)
    parent.wait(timeout=10)
    parent.stdout.close()
    assert len(pids) == 2 and all(gone(pid) for pid in pids)


def test_ctrl_c_does_not_reach_the_workers(pool: Pool) -> None:
    pool.run(functions.add_one, calls(1), seconds=1.0)
    for worker in pool.idle:
        assert os.getpgid(worker.pid) != os.getpgid(0)
        assert os.getsid(worker.pid) != os.getsid(0)


def workers_of_accuracy() -> Pool:
    return shared(rewards.Accuracy().memory_mb, ("math_verify", "rewards.symbolic"))


def test_a_forked_child_starts_its_own_workers() -> None:
    assert rewards.get("accuracy")(["\\boxed{\\sin(x)+1}"], solution=["1+\\sin(x)"]) == [1.0]
    zygote = workers_of_accuracy().zygote.process.pid
    lock = pool_module._pools_lock
    lock.acquire()  # as another thread may have at this moment
    pid = os.fork()
    if pid:
        lock.release()
    else:
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.alarm(30)
        value = rewards.get("accuracy")(["\\boxed{\\sin(y)+1}"], solution=["1+\\sin(y)"])
        own = workers_of_accuracy().zygote.process.pid
        os._exit(0 if value == [1.0] and own != zygote else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert rewards.get("accuracy")(["\\boxed{\\sin(z)+1}"], solution=["1+\\sin(z)"]) == [1.0]


def test_per_sample_functions_are_rewards(caplog: pytest.LogCaptureFixture) -> None:
    reward = rewards.PerSample(fn=functions.long_enough, seconds=2.0)
    assert reward.__name__ == "long_enough"
    assert reward(["abc", "a"], solution=["ab", "ab"], completion_ids=[[1], [2]]) == [1.0, 0.0]
    hostile = rewards.PerSample(fn=functions.misbehave_as_number, seconds=0.5, memory_mb=256)
    scores = hostile.score(["sleep", "2", "memory", "leave"])
    assert [s.value for s in scores] == [0.0, 2.0, 0.0, 0.0]
    assert [s.outcome for s in scores] == ["timeout", "ok", "memory", "crash"]
    assert core.totals["misbehave_as_number"]["timeout"] == 1
    assert "of 4 samples 1 crash, 1 memory, 1 timeout" in caplog.text
