"""The kit against our device made wrong on purpose: every variant is caught by the rows that it names, in words that name the fault.

Each variant runs in a fork of a process that has everything imported and no device used. Needs the built package and g++.
`BROKEN=NAME openreg conformance run --device openreg --import broken` is the same for a user.
"""

import json
from pathlib import Path

import broken
import pytest
from broken.libraries import driver_library, guard_library
from fork_server import ForkServer

import torch_openreg
from torch_openreg.testing.conformance.report import read_results

FAILURE = torch_openreg.load_error()
pytestmark = pytest.mark.skipif(FAILURE is not None, reason=f"openreg is not available: {FAILURE}")
HERE = Path(__file__).parent

PRELUDE = """
import gc
torch.set_num_threads(1)
import broken
import torch._dynamo, torch._functorch.aot_autograd, torch._inductor.codegen.common
from torch_openreg.testing.conformance import databases, run_row
for name in ("check", "op", "foreach", "fused", "module", "optim"):
    databases.DATABASES[name].load().entries()
gc.freeze()  # collections of the forks look at their own objects only
"""
# VARIANT: breaks the device. ROWS, DEVICE: each row's outcome and sentence, as JSON.
PROGRAM = """
import json, os
import broken
from torch_openreg.testing.conformance import run_row
from torch_openreg.testing.conformance import levels
from torch_openreg.testing.conformance.device import open_device
if {variant!r}:
    broken.break_device({variant!r})
device = open_device({device!r}, levels={{levels.of(row.split(":")[0]) for row in {rows!r}}})
for row in {rows!r}:
    op, dtype, mode = row.split(":")
    result = run_row(op, dtype, mode, device)
    print(json.dumps([row, result.outcome, result.sentence]), flush=True)
os._exit(0)  # taking apart what the parent imported takes seconds
"""
FAILING = ("error", "mismatch", "unsupported")
LONG = ("check.compile.", "check.ipc.")  # seconds each, and the schedule makes no difference to them
# What our device leaves out, with the reason that the check gives.
LEFT_OUT = {
    "check.compile.generated_code_agrees:none:check": "Inductor has no code generator for openreg",
    "check.distributed.collectives_of_one_move_data:none:check": "torch.distributed has no backend for openreg",
    "check.distributed.work_can_be_waited_for:none:check": "torch.distributed has no backend for openreg",
}


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    guard_library(), driver_library()  # before the forks, so that a compilation that fails is one error
    server = ForkServer(tmp_path_factory.mktemp("broken"), PRELUDE, [HERE])
    yield server
    server.stop()


@pytest.fixture
def run(server):
    """run(rows, variant, device, environment): {row: (outcome, sentence)}."""

    def run(rows, variant="", device="openreg:0", **environment):
        done = server.run(PROGRAM.format(variant=variant, device=device, rows=list(rows)), {"OPENREG_DEVICES": "2", **environment})
        assert done.returncode == 0, done.stdout + done.stderr
        return {row: (outcome, sentence) for row, outcome, sentence in map(json.loads, done.stdout.splitlines())}

    return run


@pytest.mark.parametrize("name", broken.VARIANTS)
def test_a_wrong_device_is_caught(run, name):
    variant = broken.VARIANTS[name]
    wanted = {broken.row_id(row): words for row, words in variant.fails.items()}
    for row, (outcome, sentence) in run(wanted, name).items():
        assert outcome in FAILING, f"{row} does not notice that {variant.rule} It says {outcome}: {sentence}"
        assert wanted[row] in sentence, f"{row} fails with other words: {sentence}"


def test_what_is_wrong_is_said_in_a_sentence():
    for name, variant in broken.VARIANTS.items():
        assert variant.rule.endswith(".") and variant.fails and all(variant.fails.values()), name


def test_every_check_has_a_variant_that_fails_it():
    named = {row for variant in broken.VARIANTS.values() for row in variant.fails}
    assert not [name for name in check_names() if name not in named and name.split(".")[1] in broken.AREAS]


def test_every_mode_and_every_database_of_the_operators_has_a_variant():
    from torch_openreg.testing.conformance import databases, levels, rows

    named = [row.split(":") for variant in broken.VARIANTS.values() for row in variant.fails if ":" in row]
    of = {databases.of(op).name for op, _, _ in named}
    assert {mode for op, _, mode in named if databases.of(op).name == "op"} == set(rows.MODES)
    assert of >= {name for level in levels.LEVELS.values() for name in level.databases}


def check_names():
    from torch_openreg.testing.conformance import checks

    return list(checks.entries())


def every_check():
    return [broken.row_id(name) for name in check_names()]


@pytest.mark.parametrize("schedule, device", [("eager", "openreg:0"), ("eager", "openreg:1"), ("lazy", "openreg:0"), ("random:1", "openreg:1")])
def test_the_right_device_passes_every_check(run, schedule, device):
    rows = [row for row in every_check() if (schedule, device) == ("eager", "openreg:0") or not row.startswith(LONG)]
    found = run(rows, device=device, OPENREG_SCHEDULE=schedule)
    assert {row: what[1] for row, what in found.items() if what[0] == "skip"} == {row: why for row, why in LEFT_OUT.items() if row in rows}
    assert not {row: what for row, what in found.items() if what[0] not in ("pass", "skip")}


@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_no_check_fails_on_a_device_of_torchs_own(run, device):
    found = run(every_check(), device=device)
    assert not {row: what for row, what in found.items() if what[0] not in ("pass", "skip") or (what[0] == "skip" and not what[1])}


def test_a_user_sees_a_wrong_device_in_the_run(openreg):
    options = ("--device", "openreg", "--import", "broken", "--level", "L1", "--ops", "check.guard.*", "--workers", "1")
    done = openreg("conformance", "run", *options, env={"BROKEN": "set_device_ignored", "OPENREG_DEVICES": "2"})
    assert done.returncode == 1, done.stdout + done.stderr
    assert "after set_device_index(1) the current device is 0" in done.stdout


def test_a_driver_is_tested_by_itself(openreg):
    from torch_openreg.driver import library_path

    done = openreg("conformance", "run", "--driver", library_path("null"), "--level", "L0", "--workers", "1", "--out", "results")
    assert done.returncode == 0, done.stdout + done.stderr
    found = {result.op: (result.outcome, result.message) for result in read_results(done.folder / "results" / "results.jsonl")}
    assert {outcome for outcome, _ in found.values()} == {"pass", "skip"}
    assert found["check.driver.a_capture_runs_when_it_is_launched"] == ("skip", "the driver 'null' has no capture_begin, which is optional")
    assert found["check.driver.streams_wait_for_events"] == ("pass", "")
    assert all("optional" in message or "needs two" in message for outcome, message in found.values() if outcome == "skip")


def test_a_library_that_is_no_driver_is_named(openreg, tmp_path):
    (tmp_path / "notes.so").write_text("no library")
    ops = ("--ops", "check.driver.the_table_is_of_this_version")
    done = openreg("conformance", "run", "--driver", tmp_path / "notes.so", "--level", "L0", "--workers", "1", *ops)
    assert done.returncode == 1 and "notes.so cannot be loaded as a driver" in done.stdout, done.stdout + done.stderr
    missing = openreg("conformance", "run", "--driver", tmp_path / "none.so")
    assert missing.returncode == 2 and "there is no driver library" in missing.stderr
