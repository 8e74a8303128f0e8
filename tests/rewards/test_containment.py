"""What interrupts a reward's call interrupts that call alone, and is interrupted by nothing."""

import errno
import faulthandler
import os
import signal
import threading
import time
from contextlib import ExitStack

import pytest

import rewards
from rewards import containment

SIGNAL = containment._SIGNAL


@pytest.fixture
def alarms(monkeypatch):
    """What is done to faulthandler's one timer: the seconds it is set to, 0 where it is taken
    away.
    """
    done = []
    monkeypatch.setattr(
        faulthandler, "dump_traceback_later", lambda left, **_: done.append(round(left))
    )
    monkeypatch.setattr(faulthandler, "cancel_dump_traceback_later", lambda: done.append(0))
    monkeypatch.setattr(containment, "GRACE", 0.0)
    return done


def test_a_signal_that_comes_while_a_call_ends_breaks_nothing(monkeypatch):
    """Its patience is over in the midst of what is undone after it."""

    class Late(threading.Event):
        def set(self):
            time.sleep(0.5)
            super().set()

    monkeypatch.setattr(containment.threading, "Event", Late)
    monkeypatch.setattr(containment, "_LOOK", 0.05)
    handler = signal.getsignal(SIGNAL)
    with rewards.contained(patience=0.2, completions=1):
        pass
    assert not [thread for thread in threading.enumerate() if "reward" in thread.name]
    assert signal.getsignal(SIGNAL) is handler


def test_nothing_breaks_in_between_a_call_and_its_end():
    reached = []
    with (
        pytest.raises(rewards.ContainedError, match="is over"),
        rewards.contained(patience=60, completions=1),
    ):
        containment._inside[0].said = "is over"
        with ExitStack() as stack:  # its code is what runs there, and none of a reward's
            stack.callback(signal.raise_signal, SIGNAL)
        reached.append("the end of the stack")
        signal.raise_signal(SIGNAL)
    assert reached == ["the end of the stack"]


def test_what_breaks_into_the_end_leaves_nothing_behind(alarms, monkeypatch):
    """Ctrl-C while the watcher is waited for."""

    def broken(self, timeout=None):
        raise KeyboardInterrupt

    monkeypatch.setattr(threading.Thread, "join", broken)
    handler = signal.getsignal(SIGNAL)
    with pytest.raises(KeyboardInterrupt), rewards.contained(patience=60, completions=1):
        pass
    assert (signal.getsignal(SIGNAL), containment._inside, alarms) == (handler, [], [60, 0])


def test_a_call_in_a_call_leaves_the_outer_ones_alarm(alarms):
    with rewards.contained(patience=60, completions=1):
        with rewards.contained(patience=30, completions=1):
            pass
        with rewards.contained(patience=90, completions=1):
            pass
    assert alarms == [60, 30, 60, 60, 60, 0]


def test_a_call_in_a_call_is_ended_with_the_outer_one(monkeypatch):
    monkeypatch.setattr(containment, "_LOOK", 0.05)
    begun = time.perf_counter()
    reached = []
    with (
        pytest.raises(rewards.ContainedError, match=r"not answered for 0\.2 s"),
        rewards.contained(patience=0.2, completions=1),
    ):
        try:
            with rewards.contained(patience=60, completions=1):
                time.sleep(60)
        except rewards.ContainedError:
            reached.append("taken for the inner one's")
    assert time.perf_counter() - begun < 30
    assert reached == []


def _fails():
    raise ValueError("no answer")


@pytest.mark.parametrize("instead", [lambda: None, lambda: time.sleep(60), _fails])
def test_an_end_of_the_process_that_a_reward_swallows_comes_again(instead, monkeypatch):
    """As by a bare `except:`; the reward may have come to its end before it comes again."""

    def ended(number, frame):
        raise rewards.Interrupted(130)

    monkeypatch.setattr(containment, "_LOOK", 0.05)
    before = signal.signal(signal.SIGUSR1, ended)
    begun = time.perf_counter()
    try:
        with pytest.raises(rewards.Interrupted), rewards.contained(patience=60, completions=1):
            try:
                os.kill(os.getpid(), signal.SIGUSR1)
            except:  # noqa: E722
                instead()
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert time.perf_counter() - begun < 30


def test_a_call_given_up_that_fails_with_an_error_of_its_own_was_given_up(monkeypatch):
    monkeypatch.setattr(containment, "_LOOK", 0.05)
    with (
        pytest.raises(rewards.ContainedError, match=r"not answered for 0\.2 s"),
        rewards.contained(patience=0.2, completions=1),
    ):
        try:
            time.sleep(60)
        except BaseException as error:
            raise ValueError("no answer") from error


@pytest.mark.parametrize("path", [True, False])
def test_a_folder_that_is_gone_or_may_not_be_read_is_none_of_a_rewards_business(path, monkeypatch):
    def opened(folder, flags, really=os.open):
        if path and flags & os.O_PATH:
            return really(folder, flags)
        raise PermissionError(errno.EACCES, "Permission denied", folder)

    here = os.getcwd()
    monkeypatch.setattr(containment.os, "open", opened)
    monkeypatch.chdir(here)
    with rewards.contained(patience=60, completions=1):
        os.chdir("/")
    assert os.getcwd() == (here if path else "/")


@pytest.mark.parametrize("end", [rewards.Interrupted(130), KeyboardInterrupt()])
def test_an_end_of_the_process_that_no_reward_asked_for_goes_through(end):
    def ended(number, frame):
        raise end

    before = signal.signal(signal.SIGUSR1, ended)
    try:
        with pytest.raises(type(end)) as caught, rewards.contained(patience=60, completions=1):
            os.kill(os.getpid(), signal.SIGUSR1)
            time.sleep(1)
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert caught.value is end
