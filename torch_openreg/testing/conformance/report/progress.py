"""The progress line: one that is rewritten on a terminal; on anything else a line for each tenth of the run."""

import shutil
import sys
import time

from ..result import RowResult
from .score import Tally


class Progress:
    """total: rows of the run. done: results of an earlier part of it, which count in the score and not in the estimate of time."""

    def __init__(self, total: int, stream=None, done=()):
        self.total, self.stream = total, stream or sys.stderr
        self.tally, self.failing = Tally(), 0
        for result in done:
            self._count(result)
        self.before = self.tally.rows
        self.started = time.monotonic()
        self.live = self.stream.isatty()

    def add(self, result: RowResult) -> None:
        tenth = self.tally.rows * 10 // self.total
        self._count(result)
        if self.live or self.tally.rows * 10 // self.total != tenth:
            self._show()

    def _count(self, result: RowResult) -> None:
        self.tally.add(result)
        self.failing += result.failing and result.gap != "covered"

    def _show(self) -> None:
        elapsed, done = time.monotonic() - self.started, self.tally.rows
        left = elapsed / (done - self.before) * (self.total - done)
        text = (f"{done}/{self.total} rows, score {self.tally.percent}, {self.failing} failing, "
                f"{_clock(elapsed)} gone, about {_clock(left)} left")
        if self.live:
            width = max(10, min(30, shutil.get_terminal_size().columns - len(text) - 5))
            filled = done * width // self.total
            text = f"\r[{'#' * filled}{'.' * (width - filled)}] {text}\x1b[K"
        self.stream.write(text + ("" if self.live else "\n"))
        self.stream.flush()

    def close(self) -> None:
        if self.live and self.tally.rows > self.before:
            self.stream.write("\r\x1b[K")
            self.stream.flush()


def _clock(seconds: float) -> str:
    return f"{int(seconds) // 60}:{int(seconds) % 60:02}"
