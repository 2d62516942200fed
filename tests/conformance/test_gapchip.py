"""A backend with real gaps and its gap file: what a vendor does, from the first run to a run that says what changed.

Runs on `gapchip`, the Python-only device of this folder, in a process of its own.
"""

from pathlib import Path

import pytest

from torch_openreg.testing.conformance import gaps, levels
from torch_openreg.testing.conformance.report import read_results

GAPS = Path(__file__).with_name("gapchip.toml")
CHECKS = "check.device.*,check.hooks.*,check.module.*,check.random.*,check.amp.*"
RUN = (
    "conformance", "run", "--device", "gapchip", "--import", "gapchip", "--db", "check,op", "--ops", f"{CHECKS},add,exp,mm,sort,transpose",
    "--mode", "check,forward", "--samples", "2", "--workers", "1", "--gaps",
)  # fmt: skip


@pytest.fixture(scope="module")
def run(openreg):
    return openreg(*RUN, GAPS)


@pytest.fixture(scope="module")
def results(run):
    return list(read_results(run.folder / "openreg-conformance" / "results.jsonl"))


def test_a_run_with_the_gap_file_ends_well(run):
    assert run.returncode == 0, run.stdout + run.stderr
    assert "failing rows are covered by the gap file" in run.stdout


def test_the_score_is_that_of_the_device_and_not_of_the_file(results):
    for level in ("L1", "L3", "L4"):
        scored = [result for result in results if levels.of(result.op) == level and result.scored]
        assert 0.01 < sum(result.outcome == "pass" for result in scored) / len(scored) < 0.99, level
    operators = [result for result in results if levels.of(result.op) == "L3"]
    assert (len(operators), sum(result.outcome == "pass" for result in operators)) == (28, 11)


def test_what_is_missing_is_unsupported_and_what_is_wrong_is_not(results):
    found = {result.id: result for result in results}
    assert found["sort:float32:forward"].outcome == "unsupported" and "no kernel for aten::sort" in found["sort:float32:forward"].message
    assert found["exp:bool:forward"].outcome == "mismatch" and found["exp:bool:forward"].gap_reason == "computes in half precision"
    assert found["add:bfloat16:forward"].outcome == "unsupported" and found["add:float32:forward"].outcome == "pass"


def test_every_entry_of_the_file_is_needed(results):
    entries = gaps.read(GAPS)
    for entry in entries:
        others = [other for other in entries if other is not entry]
        again = [gaps.apply(others, gaps.RowResult.from_json(result.to_json() | {"gap": "", "gap_reason": ""})) for result in results]
        assert any(result.failing and result.gap != "covered" for result in again), f"nothing fails without {entry}"
