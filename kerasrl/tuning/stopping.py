"""Interrupting the launcher: whatever asks it to end lets it clean up first."""

import contextlib
import signal
import threading
from collections.abc import Iterator
from typing import Any

_SIGNALS = ("SIGTERM", "SIGHUP")


@contextlib.contextmanager
def signals_as_exceptions() -> Iterator[None]:
    """Have signals that end a program raise SystemExit in the context.

    Ctrl-C raises KeyboardInterrupt without this. In other threads than the main one,
    which receives no signals, nothing changes.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def leave(number: int, frame: Any) -> None:
        raise SystemExit(128 + number)

    kept = {}
    for name in _SIGNALS:
        number = getattr(signal, name, None)
        # What a program was told to ignore, as by nohup, it goes on ignoring.
        if number is not None and signal.getsignal(number) is signal.SIG_DFL:
            kept[number] = signal.signal(number, leave)
    try:
        yield
    finally:
        for number, handler in kept.items():
            signal.signal(number, handler)
