"""The pool of workers, with stubs for workers: what ends or silences a process costs one row at most; and when a worker asks to be replaced.
See test_faults.py for a device that does such things."""

import pytest
import stub_worker

from torch_openreg.testing.conformance import RowResult, pool, worker


@pytest.fixture
def run(monkeypatch):
    """run({op: outcome}, **plan) -> ({op: result}, what was wrong with workers that ended)."""
    monkeypatch.setattr(pool, "child", stub_worker.Workers)
    monkeypatch.setenv("PYTHONPATH", stub_worker.package_root())

    def run(rows, **plan):
        monkeypatch.setenv("STUB_ROWS", ",".join(f"{op}={outcome}" for op, outcome in rows.items()))
        workers = pool.Pool(pool.Plan("cpu", **{"workers": 1, "row_timeout_s": 2.0, **plan}))
        try:
            results = {result.op: result for result in workers.run(workers.list_rows())}
        finally:
            workers.close()
        return results, workers.exit_problems

    return run


def test_a_killed_process_and_a_hang_are_one_row_each_and_name_the_row_before(run):
    results, problems = run({"a": "pass", "b": "kill", "c": "pass", "d": "wait", "e": "pass"})
    assert {op: result.outcome for op, result in results.items()} == {"a": "pass", "b": "crash", "c": "pass", "d": "timeout", "e": "pass"}
    assert results["b"].sentence == (
        "the process ends with SIGKILL (often the system's out-of-memory killer) (after a:float32:forward in the same process)")
    assert results["d"].after == "c:float32:forward" and "longer than 2 s" in results["d"].message and problems == []


def test_a_process_that_falls_silent_between_two_rows_is_replaced(run):
    results, problems = run({op: "stall" if op == "b" else "pass" for op in "abcdefgh"})
    assert {result.outcome for result in results.values()} == {"pass"} and len(results) == 8
    assert problems == ["a worker said nothing for 2 s between two rows"]


def test_every_row_runs_once_with_many_workers(run):
    rows = {f"op{number}": "kill" if number % 9 == 4 else "pass" for number in range(40)}
    results, problems = run(rows, workers=3, row_timeout_s=60.0)
    assert {op: result.outcome for op, result in results.items()} == {op: "crash" if outcome == "kill" else "pass" for op, outcome in rows.items()}
    assert problems == []


@pytest.mark.parametrize("outcome, error_type, message, healthy, told, stays", [
    ("pass", "", "", True, "pass", True),
    ("mismatch", "", "dtype torch.float64", True, "mismatch", True),
    ("pass", "", "", False, "error", False),
    ("mismatch", "", "dtype torch.float64", False, "mismatch", False),
    ("error", "OutOfMemoryError", "OutOfMemoryError: the chip is full", True, "error", False),
    ("error", "RuntimeError", "DefaultCPUAllocator: can't allocate memory: you tried to allocate 64 bytes", True, "error", False),
    ("error", "MemoryError", "MemoryError: ", True, "error", False),
    ("cpu-cannot", "", "RuntimeError: DefaultCPUAllocator: can't allocate memory", True, "cpu-cannot", True),
])  # fmt: skip
def test_a_worker_leaves_when_the_device_or_its_memory_is_gone(outcome, error_type, message, healthy, told, stays, monkeypatch):
    from torch_openreg.testing.conformance import execution

    said = []
    parent = type("Parent", (), {"send": lambda self, event, **fields: said.append((event, fields))})()
    device = type("Device", (), {"checks_health": True, "healthy": lambda self: healthy})()
    monkeypatch.setattr(execution, "run_row", lambda op, dtype, mode, *_, **__: RowResult(op, dtype, mode, "cpu", outcome, message, error_type=error_type))
    assert worker._run(parent, device, 0, [["a", "float32", "forward", 1], ["b", "float32", "forward", 1]]) is stays
    (_, started), (_, done), *rest = said
    assert done["result"]["outcome"] == told and started["row"] == ["a", "float32", "forward"]
    assert [event for event, _ in rest] == (["start", "done", "idle"] if stays else ["restart"])
