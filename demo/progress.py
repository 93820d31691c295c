"""One line that says what is being done, how far it is, and how long it will still take.

    with Progress(sys.stdout) as progress:
        progress.expect(74)                           # images in all
        progress.begin("searching the layers", 22)    # this job's part of them
        progress.share(0.5)                           # half of the job is done
        progress.say("Found: layers 8-9")             # a line that stays

In a terminal the line is rewritten four times a second; elsewhere, as in a log, a new one is written every ten seconds.
"""

from __future__ import annotations

import shutil
import threading
import time
from typing import TextIO

# Seconds between two drawings of the line, in a terminal and elsewhere.
TICK, PLAIN_TICK = 0.25, 10.0
# The share of the work to be done before a time left is told.
MEASURED = 0.05
BAR = 24


class Progress:
    """The line. Its time left comes from the images made so far and the time since the first was begun."""

    def __init__(self, stream: TextIO) -> None:
        self._stream, self._terminal = stream, stream.isatty()
        self._started = time.monotonic()
        self._worked: float | None = None
        self._title, self._total, self._before, self._job, self._share = "", 0.0, 0.0, 0.0, 0.0
        self._lock, self._ended = threading.Lock(), threading.Event()
        self._ticker = threading.Thread(target=self._tick, daemon=True)

    def __enter__(self) -> Progress:
        self._ticker.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._ended.set()
        self._ticker.join()
        self._write("")

    def expect(self, images: float) -> None:
        """How many images all jobs are worth."""
        self._total = images

    def begin(self, title: str, images: float = 0.0) -> None:
        """Ends the job before and begins one that is worth so many images."""
        if images and self._worked is None:
            self._worked = time.monotonic()
        self._before += self._job
        self._title, self._job, self._share = title, images, 0.0

    def share(self, share: float) -> None:
        """Which share of the job is done."""
        self._share = share

    def say(self, text: str) -> None:
        """Writes lines that stay."""
        self._write(text + "\n")

    def line(self) -> str:
        """The line as it is now."""
        now = time.monotonic()
        done = self._before + self._job * min(self._share, 1.0)
        if not self._total or self._worked is None:
            return f"{clock(now - self._started)}  {self._title}"
        part, left = min(done / self._total, 1.0), ""
        if MEASURED <= part < 1:
            left = f", about {clock((now - self._worked) * (1 - part) / part)} left"
        bar = "#" * round(BAR * part)
        return f"{clock(now - self._started)}  [{bar:-<{BAR}}] {part:4.0%}  {self._title}{left}"

    def _tick(self) -> None:
        wait = TICK
        while not self._ended.wait(wait):
            self._write(self.line() if self._terminal else self.line() + "\n")
            wait = TICK if self._terminal else PLAIN_TICK

    def _write(self, text: str) -> None:
        with self._lock:
            if self._terminal:
                width = shutil.get_terminal_size().columns - 1
                self._stream.write("\r" + " " * width + "\r")
                text = text if text.endswith("\n") else text[:width]
            self._stream.write(text)
            self._stream.flush()


def clock(seconds: float) -> str:
    """Minutes and seconds: "1:05"."""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes}:{rest:02}"
