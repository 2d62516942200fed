"""Every kind of fault becomes exactly one row with the right outcome, and the rows around it pass.

Runs on `fakechip`, the Python-only device of this folder, with one fault per operator. A second process each.
"""

import pytest

from torch_openreg.testing.conformance.report import read_results

# operator -> (fault of fakechip, outcome, words of the message)
BROKEN = {
    "cos": ("value", "mismatch", "not close"),
    "tan": ("dtype", "mismatch", "dtype torch.float64, expected torch.float32"),
    "sinh": ("shape", "mismatch", "shape (1, 20, 20), expected (20, 20)"),
    "cosh": ("silent cpu", "mismatch", "device cpu, expected fakechip"),
    "asin": ("unsupported", "unsupported", "NotImplementedError: the chip has no such kernel"),
    "atan": ("error", "error", "ValueError: the chip does not like"),
    "atanh": ("late", "error", "RuntimeError: the chip reports late"),
    "expm1": ("lose", "error", "RuntimeError: the chip falls over; the device does not work any more"),
    "acos": ("acos once, then abort", "crash", "SIGABRT"),
    "asinh": ("exit", "crash", "exit status 3"),
    "acosh": ("hang", "timeout", "longer than 3 s"),
    "erf": ("erf and a leaked lock", "timeout", "longer than 3 s"),
    "digamma": ("fill the chip", "error", "OutOfMemoryError: the chip is full"),
}
SOUND = ["sin", "exp", "log", "neg", "mul", "dot", "mm", "zeros", "ones", "full", "rand_like", "nn.functional.dropout"]
FAULTS = ";".join(f"aten::{op}={fault}" for op, (fault, _, _) in BROKEN.items())
DEVICE = ("--device", "fakechip", "--import", "fakechip")
ENVIRONMENT = {"FAKECHIP_FAULTS": FAULTS}


@pytest.fixture(scope="module")
def broken_run(openreg):
    ops = ",".join([*BROKEN, *SOUND, "permute"])
    return openreg(
        "conformance", "run", *DEVICE, "--ops", ops, "--dtypes", "float32", "--mode", "forward", "--samples", "4",
        "--timeout", "3s", "--workers", "2", env=ENVIRONMENT, timeout=400,
    )  # fmt: skip


@pytest.fixture(scope="module")
def results(broken_run):
    return {r.op: r for r in read_results(broken_run.folder / "openreg-conformance" / "results.jsonl")}


@pytest.mark.parametrize("op", BROKEN)
def test_a_fault_is_one_row_with_its_outcome(results, op):
    _, outcome, words = BROKEN[op]
    assert (results[op].outcome, results[op].sample) == (outcome, 1 if op == "acos" else 0)
    assert words in results[op].sentence


@pytest.mark.parametrize("op", SOUND)
def test_the_rows_around_faults_pass(results, op):
    assert results[op].outcome == "pass", results[op].sentence


def test_lost_strides_are_a_mismatch(results):
    assert results["permute"].outcome == "mismatch" and "strides" in results["permute"].message


def test_every_row_is_there_once(broken_run, results):
    lines = (broken_run.folder / "openreg-conformance" / "results.jsonl").read_text().splitlines()
    assert len(lines) == len(results) == len(BROKEN) + len(SOUND) + 1


def test_a_hang_says_where(results):
    assert "fakechip.py" in results["acosh"].message


def test_failing_rows_give_status_1_and_a_command_each(broken_run):
    assert broken_run.returncode == 1
    assert "openreg conformance repro 'cos:float32:forward#0' --device fakechip --import fakechip --samples 4" in broken_run.stdout


def test_the_printed_command_shows_the_failure_again(openreg):
    done = openreg("conformance", "repro", "cos:float32:forward#0", *DEVICE, env=ENVIRONMENT)
    assert done.returncode == 1
    assert "Traceback" in done.stderr and "cos:float32:forward on fakechip: mismatch: output" in done.stdout


def test_a_sample_that_passes_alone_is_rerun_after_the_others(openreg):
    done = openreg("conformance", "repro", "acos:float32:forward#1", *DEVICE, env=ENVIRONMENT)
    assert "The sample passes alone." in done.stdout and "sample 0 of 3" in done.stdout
    assert done.returncode == -6, "the second call of the process aborts"


def test_a_wrong_backward_kernel_is_a_gradient_row(openreg):
    done = openreg("conformance", "repro", "cos:float32:gradient", *DEVICE, env={"FAKECHIP_FAULTS": "aten::sin=value"})
    assert done.returncode == 1
    assert "mismatch: gradient[0]" in done.stdout


def test_the_gap_file_decides_the_exit_status(openreg, tmp_path):
    gap = '[[gap]]\nop = "{op}"\nkind = "{kind}"\nreason = "the chip is a fake"\n'
    covered, passing = tmp_path / "covered.toml", tmp_path / "passing.toml"
    covered.write_text(gap.format(op="asin", kind="unsupported") + gap.format(op="cos", kind="expected_failure"))
    passing.write_text(covered.read_text() + gap.format(op="sin", kind="expected_failure"))
    run = ("conformance", "run", *DEVICE, "--ops", "sin,cos,asin", "--dtypes", "float32", "--mode", "forward", "--workers", "1")
    done = openreg(*run, "--gaps", covered, env=ENVIRONMENT)
    assert done.returncode == 0 and "2 failing rows are covered by the gap file" in done.stdout
    done = openreg(*run, "--gaps", passing, env=ENVIRONMENT)
    assert done.returncode == 1
    assert "unexpected pass: sin:float32:forward (the gap file says: the chip is a fake)" in done.stdout


def test_update_writes_a_gap_file_with_which_the_run_is_accepted(openreg, tmp_path):
    path = tmp_path / "fakechip.toml"
    run = ("conformance", "run", *DEVICE, "--ops", "sin,cos,asin", "--dtypes", "float32", "--mode", "forward", "--workers", "1", "--gaps", path)
    done = openreg(*run, "--update", env=ENVIRONMENT)
    assert done.returncode == 0 and "2 entries are new, 0 are gone, 2 in all" in done.stdout, done.stderr
    assert 'op = "asin"\nkind = "unsupported"\nreason = "unsupported: NotImplementedError: the chip has no such kernel"' in path.read_text()
    assert openreg(*run, env=ENVIRONMENT).returncode == 0
    repaired = {"FAKECHIP_FAULTS": "aten::asin=unsupported"}
    assert openreg(*run, env=repaired).returncode == 1, "cos passes unexpectedly"
    assert "0 entries are new, 1 are gone, 1 in all" in openreg(*run, "--update", env=repaired).stdout


def test_update_needs_a_file_of_its_own(openreg):
    done = openreg("conformance", "run", *DEVICE, "--update")
    assert done.returncode == 2 and "--update rewrites the file of --gaps" in done.stderr


def test_a_device_that_dies_while_loading_ends_the_run_with_its_last_words(openreg):
    done = openreg("conformance", "run", *DEVICE, "--workers", "1", env={"FAKECHIP_FAULTS": "aten::nosuch=nosuch"})
    assert done.returncode == 2
    assert "cannot import 'fakechip': KeyError" in done.stderr
