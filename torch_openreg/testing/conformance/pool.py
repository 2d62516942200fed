"""The parent: hands rows to worker processes and turns a crash, a hang or a lost device into one row's outcome.

The parent never imports torch. Each worker is a fresh interpreter, so nothing of the parent is inherited by a
fork. A worker that dies or overruns the time of a row is replaced; the rows of its batch that it had not begun go on.
"""

import json
import os
import selectors
import signal
import subprocess
import tempfile
import time
from collections import deque
from dataclasses import dataclass, field

from torch_openreg import child

from .environment import worker_environment
from .result import RowResult
from .rows import Row

BATCH = 8  # rows per request: few, so that workers end together
START_TIMEOUT_S = 180.0
START_ATTEMPTS = 3  # in a row, before the run gives up
EXIT_TIMEOUT_S = 20.0
STACK_WAIT_S = 0.2
BUDGET_SPENT = "the time budget is used up"


class RunFailed(RuntimeError):
    """No worker can be started; the message says why."""


@dataclass(frozen=True)
class Plan:
    """What to run, and how. Times in seconds."""

    device: str = "openreg"
    module: str = ""
    ops: tuple[str, ...] = ()
    dtypes: tuple[str, ...] = ()
    modes: tuple[str, ...] = ()
    full: bool = False
    samples: int | None = None
    seed: int = 0
    workers: int = 2
    row_timeout_s: float = 60.0
    databases: tuple[str, ...] = ("op",)
    levels: tuple[str, ...] = ()  # with these, only rows of these levels
    packs: tuple[str, ...] = ()  # model packs' files; none means those that ship


@dataclass
class _Task:
    row: Row
    samples: int


@dataclass
class _Running:
    task: _Task
    since: float
    sample: int | None = None
    log_from: int = 0


@dataclass
class _Worker:
    process: subprocess.Popen
    log: object
    started: float
    ready: bool = False
    buffer: bytes = b""
    batch: deque = field(default_factory=deque)
    running: _Running | None = None
    heard: float | None = None  # while it has a batch: when it last said something
    previous: str = ""  # the row that it ran last
    leaving: bool = False  # it said that it ends; its end is not a crash


class Pool:
    """Runs a plan. `list_rows` first, then iterate over `run(tasks)`: results come as rows finish."""

    def __init__(self, plan: Plan):
        self.plan = plan
        self.selector = selectors.DefaultSelector()
        self.workers: list[_Worker] = []
        self.failed_starts = 0
        self.kernels: list[str] = []  # that the device has registered, known after list_rows
        self.torch_version = ""  # known once a worker is ready
        self.exit_problems: list[str] = []  # workers that died after their last row
        for _ in range(plan.workers):
            self._start()

    def list_rows(self) -> list[tuple[Row, int]]:
        """The rows of the plan with their number of samples, asked from the first worker that is ready."""
        plan, asked = self.plan, None
        request = {"do": "list", "ops": plan.ops, "dtypes": plan.dtypes, "modes": plan.modes, "full": plan.full,
                   "samples": plan.samples, "databases": plan.databases, "levels": plan.levels}
        while True:
            for worker, message in self._messages():
                if message["event"] == "rows":
                    self.kernels = message["kernels"]
                    return [(Row(op, dtype, mode), samples) for op, dtype, mode, samples in message["rows"]]
                if message["event"] == "ended":
                    self._replace(worker)
                    asked = None if asked is worker else asked
                if asked is None and (asked := next((w for w in self.workers if w.ready), None)):
                    self._send(asked, request)

    def run(self, rows: list[tuple[Row, int]], stop_at: float | None = None):
        """Yields one RowResult per row. After `stop_at` (time.monotonic) no further row is begun; those are skipped."""
        waiting = deque(_Task(row, samples) for row, samples in rows)
        open_rows = len(waiting)
        if stop_at is None or time.monotonic() <= stop_at:
            for worker in self.workers:
                self._feed(worker, waiting)
        while open_rows:
            if stop_at is not None and time.monotonic() > stop_at and waiting:
                for task in waiting:
                    open_rows -= 1
                    yield self._result(task, "skip", BUDGET_SPENT)
                waiting.clear()
                continue
            for worker, message in self._messages():
                for result in self._handle(worker, message, waiting):
                    open_rows -= 1
                    yield result

    def close(self) -> None:
        """Lets idle workers end, kills the others. A worker that dies badly now is noted in `exit_problems`."""
        idle = [w for w in self.workers if w.ready and w.running is None and not w.batch]
        for worker in self.workers:
            if worker not in idle:
                self._kill(worker)
        for worker in idle:
            worker.process.stdin.close()
        for worker in idle:
            try:
                status = worker.process.wait(EXIT_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                self._kill(worker)
                self.exit_problems.append(f"a worker did not end within {EXIT_TIMEOUT_S:.0f} s after its last row")
                continue
            if status != 0:
                self.exit_problems.append(f"a worker ended with {_describe_status(status)} after its last row{self._tail(worker, 0)}")
        for worker in self.workers:
            worker.process.stdout.close()
            worker.log.close()
        self.workers.clear()
        self.selector.close()

    # -- workers --

    def _start(self) -> None:
        config = {"parent": os.getpid(), "device": self.plan.device, "module": self.plan.module, "seed": self.plan.seed,
                  "databases": self.plan.databases, "levels": self.plan.levels, "packs": self.plan.packs}
        log = tempfile.TemporaryFile()
        process = subprocess.Popen(
            child.command("torch_openreg.testing.conformance.worker", json.dumps(config)),
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log,
            env=worker_environment(self.plan.device), start_new_session=True,
        )
        os.set_blocking(process.stdout.fileno(), False)
        worker = _Worker(process, log, time.monotonic())
        self.workers.append(worker)
        self.selector.register(process.stdout, selectors.EVENT_READ, worker)

    def _kill(self, worker: _Worker) -> None:
        try:
            os.killpg(worker.process.pid, signal.SIGKILL)  # its own session: what an operator started dies with it
        except ProcessLookupError:
            pass
        worker.process.wait()

    def _replace(self, worker: _Worker) -> None:
        if not worker.ready:
            self.failed_starts += 1
            if self.failed_starts >= START_ATTEMPTS:
                status = _describe_status(worker.process.returncode)
                raise RunFailed(f"a worker for device {self.plan.device!r} ends with {status} before its first row{self._tail(worker, 0)}")
        self.workers.remove(worker)
        worker.process.stdout.close()
        worker.process.stdin.close()
        worker.log.close()
        self._start()

    def _send(self, worker: _Worker, request: dict) -> None:
        try:
            worker.process.stdin.write((json.dumps(request) + "\n").encode())
            worker.process.stdin.flush()
        except BrokenPipeError:
            pass  # it is dead; the end of its output says so, and its batch goes to another one

    def _feed(self, worker: _Worker, waiting: deque) -> None:
        if not worker.ready or worker.batch or worker.running or not waiting:
            return
        size = max(1, min(BATCH, len(waiting) // (2 * len(self.workers))))
        worker.batch.extend(waiting.popleft() for _ in range(size))
        rows = [[t.row.op, t.row.dtype, t.row.mode, t.samples] for t in worker.batch]
        worker.heard = time.monotonic()
        self._send(worker, {"do": "run", "rows": rows})

    # -- messages --

    def _messages(self):
        """Waits for news and yields (worker, message). Adds to the workers' own messages: "ended", and "overrun"."""
        now = time.monotonic()
        deadlines = [self._deadline(w) for w in self.workers]
        wait_s = max(0.0, min([d - now for d in deadlines if d is not None], default=1.0))
        for key, _ in self.selector.select(min(wait_s, 1.0)):
            worker = key.data
            data = os.read(worker.process.stdout.fileno(), 1 << 16)
            worker.buffer += data
            *lines, worker.buffer = worker.buffer.split(b"\n")
            for line in lines:
                message = json.loads(line)
                self._note(worker, message)
                yield worker, message
            if not data:
                self.selector.unregister(worker.process.stdout)
                worker.process.wait()
                yield worker, {"event": "ended"}
        now = time.monotonic()
        for worker in list(self.workers):
            deadline = self._deadline(worker)
            if deadline is not None and now > deadline:
                self.selector.unregister(worker.process.stdout)
                if worker.running:
                    worker.process.send_signal(signal.SIGUSR1)  # it writes its Python stack to the log
                    time.sleep(STACK_WAIT_S)
                self._kill(worker)
                yield worker, {"event": "overrun" if worker.running else "ended", "killed": True}

    def _deadline(self, worker: _Worker) -> float | None:
        if not worker.ready:
            return worker.started + START_TIMEOUT_S
        since = worker.running.since if worker.running else worker.heard
        return None if since is None else since + self.plan.row_timeout_s

    def _note(self, worker: _Worker, message: dict) -> None:
        event = message["event"]
        worker.heard = None if worker.heard is None or event == "idle" else time.monotonic()
        if event == "ready":
            worker.ready, self.failed_starts, self.torch_version = True, 0, message["torch"]
        elif event == "unusable":
            raise RunFailed(message["message"])
        elif event == "start":
            worker.running = _Running(worker.batch.popleft(), time.monotonic(), None, os.fstat(worker.log.fileno()).st_size)
        elif event == "sample":
            worker.running.sample = message["index"]
        elif event == "restart":
            worker.leaving = True

    def _handle(self, worker: _Worker, message: dict, waiting: deque):
        event = message["event"]
        if event == "done":
            worker.previous, worker.running = worker.running.task.row.id, None
            yield RowResult.from_json(message["result"])
        elif event in ("ready", "idle"):
            self._feed(worker, waiting)
        elif event in ("ended", "overrun"):
            if worker.running:
                yield self._death(worker, event)
            elif worker.ready and not worker.leaving:
                status = f"ended with {_describe_status(worker.process.returncode)}"
                how = f"said nothing for {self.plan.row_timeout_s:g} s" if message.get("killed") else status
                self.exit_problems.append(f"a worker {how} between two rows{self._tail(worker, 0)}")
            waiting.extendleft(reversed(worker.batch))
            self._replace(worker)

    def _death(self, worker: _Worker, event: str) -> RowResult:
        running = worker.running
        if event == "overrun":
            outcome, message = "timeout", f"the row takes longer than {self.plan.row_timeout_s:g} s"
        else:
            outcome, message = "crash", f"the process ends with {_describe_status(worker.process.returncode)}"
        result = self._result(running.task, outcome, message + self._tail(worker, running.log_from))
        result.sample = running.sample
        result.samples_failed = 1
        result.after = worker.previous
        result.seconds = round(time.monotonic() - running.since, 3)
        return result

    def _result(self, task: _Task, outcome: str, message: str) -> RowResult:
        row = task.row
        return RowResult(row.op, row.dtype, row.mode, self.plan.device, outcome, message, seed=self.plan.seed)

    def _tail(self, worker: _Worker, start: int) -> str:
        """The end of what the worker wrote to standard error since `start`, as the second half of a sentence."""
        worker.log.seek(start)
        text = worker.log.read().decode(errors="replace").strip()
        # A stack that was asked for names the place first; anything else says what matters last.
        stack = text.rfind("(most recent call first)")
        text = text[-1500:] if stack < 0 else text[stack : stack + 1500]
        return f"; its last words: {text}" if text else ""


def _describe_status(status: int) -> str:
    if status >= 0:
        return f"exit status {status}"
    try:
        name = signal.Signals(-status).name
    except ValueError:
        name = f"signal {-status}"
    return name + (" (often the system's out-of-memory killer)" if name == "SIGKILL" else "")
