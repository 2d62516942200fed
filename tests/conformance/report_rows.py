"""Rows as a run leaves them, written short, and the facts of a run, for the tests of reports."""

from torch_openreg.testing.conformance.result import RowResult
from torch_openreg.testing.conformance.run_facts import RunFacts

NASTY = "</script><b>&\"'` \x1b[31m \ud800"


def row(id_, outcome="pass", message="", **more):
    op, dtype, mode = id_.split(":")
    return RowResult(op, dtype, mode, "mychip:0", outcome, message, **{"seconds": 0.25, "samples_run": 2, **more})


def facts(rows, **more):
    plan = {"device": "mychip:0", "module": "torch_mychip", "torch": "2.13.0", "torch_openreg": "0.1.0", "seed": 3, "environment": {}}
    return RunFacts(plan, "conformance run --device mychip", "--device mychip --import torch_mychip", "2026-01-31T09:00:00Z", rows, **more)


def some_of_everything():
    """A row of every outcome, of several levels and families, and texts that would be markup."""
    return [
        row("add:float32:forward"),
        row("add:int64:forward", "mismatch", "output: 3 / 4 elements are not close", sample=2, sample_summary=f"add({NASTY})"),
        row("add:float32:gradient", "error", f"RuntimeError: {NASTY}", stage="backward", sample=0),
        row("linalg.svd:float32:forward", "unsupported", "NotImplementedError: no kernel", gap="covered", gap_reason="the chip is young & <small>"),
        row("linalg.svd:float32:gradient", gap="unexpected pass", gap_reason="once it failed"),
        row("linalg.qr:float32:forward", "crash", "the process ends with SIGSEGV; its last words: \x00\x1b", sample=1),
        row("linalg.eigh:float32:forward", "timeout", "the row takes longer than 60 s"),
        row("jiterator_unary:float32:forward", "cpu-cannot", "RuntimeError: CUDA only"),
        row("module.nn.Linear:float32:memory_format", "skip", "the entry has no samples"),
        row("optim.SGD:float32:foreach"),
        row("check.stream.work_on_one_stream_runs_in_order:none:check", "mismatch", "the second fill came first", sample=0),
    ]
