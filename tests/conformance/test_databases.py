"""Every database of the conformance kit: its rows can be named and run, and its checks catch a device that is wrong.

The sample runs on openreg, in this process, both devices in turn; faults replace an operator for device tensors only.
Needs the built package. `openreg conformance run --db all` runs all rows.
"""

import pytest
import torch

import torch_openreg

FAILURE = torch_openreg.load_error()
pytestmark = pytest.mark.skipif(FAILURE is not None, reason=f"openreg is not available: {FAILURE}")
OTHERS = ("python_ref", "foreach", "fused", "module", "optim")
PARTS = {"python_ref": 4, "foreach": 2, "fused": 1, "module": 4, "optim": 2}
EVERY = {"python_ref": 6, "foreach": 3, "module": 5, "optim": 2}  # of how many rows the sample takes one
SHARDS = [(name, part) for name in OTHERS for part in range(PARTS[name])]


def test_every_row_belongs_to_its_own_database():
    from torch_openreg.testing.conformance import databases

    for name, database in databases.DATABASES.items():
        module = database.load()
        assert set(module.RUNNERS) == set(database.modes), name
        assert {databases.of(row).name for row in module.entries()} == {name}


def test_modes_of_another_database_are_refused():
    from torch_openreg.testing.conformance.rows import parse_id

    assert parse_id("module.nn.Linear:float32:gradient#2")[1] == 2
    assert parse_id("optim.AdamW:float32:fused")[0].op == "optim.AdamW"
    with pytest.raises(ValueError, match="the modes are default, forloop, foreach"):
        parse_id("optim.AdamW:float32:forward")


def test_the_command_takes_a_database(openreg):
    run = ("conformance", "run", "--device", "cpu", "--workers", "1", "--samples", "2")
    done = openreg(*run, "--db", "optim,fused", "--ops", "optim.SGD,_fused_sgd_", "--mode", "forloop,inplace")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "optim/forloop" in done.stdout and "fused/inplace" in done.stdout
    assert openreg(*run, "--db", "nothing").returncode == 2
    again = openreg("conformance", "repro", "optim.SGD:float32:forloop#1", "--device", "cpu")
    assert again.returncode == 0 and "sample 1 of 9" in again.stdout


@pytest.mark.parametrize("name, part", SHARDS, ids=[f"{name}-{part + 1}" for name, part in SHARDS])
def test_a_sample_of_each_database(name, part, one_thread, on_a_short_stack):
    from torch_openreg.testing.conformance import databases, gaps, report, rows, run_row
    from torch_openreg.testing.conformance.device import DeviceUnderTest

    device = DeviceUnderTest(f"openreg:{part % 2}")
    known = gaps.read(gaps.default_file("openreg"))
    every = EVERY.get(name, 1)
    chosen = rows.shard([row for row in databases.select(databases.DATABASES[name])][::every], part + 1, PARTS[name])
    assert chosen
    results = on_a_short_stack(lambda: [gaps.apply(known, run_row(row.op, row.dtype, row.mode, device, samples=2)) for row in chosen])
    # A covered row may pass here: two samples can miss the one that fails.
    wrong = [r for r in results if r.failing and r.gap != "covered"]
    assert not wrong, "\n".join(
        f"{r.outcome}: {r.sentence}\n    {report.repro_command(r, f'--device {device.name}')}" for r in wrong
    )


def on_device(value) -> bool:
    from torch_openreg.testing.conformance.samples import tensors

    return any(tensor.device.type == "openreg" for tensor in tensors(value))


def wrong_values(operator):
    """The operator with its result, or what it changes in place, one too large on the device."""

    def call(*args, **kwargs):
        result = operator(*args, **kwargs)
        if on_device((args, kwargs)):
            with torch.no_grad():
                for tensor in args[0] if result is None else [result] if isinstance(result, torch.Tensor) else result:
                    tensor.add_(1)
        return result

    return call


def run(row_id, samples=4):
    from torch_openreg.testing.conformance import run_row
    from torch_openreg.testing.conformance.rows import parse_id

    row, _ = parse_id(row_id)
    return run_row(row.op, row.dtype, row.mode, "openreg", samples=samples)


def test_foreach_catches_wrong_values(monkeypatch):
    from torch_openreg.testing.conformance.databases import foreach

    entry = foreach.entries()["_foreach_exp"]
    monkeypatch.setattr(entry, "op", wrong_values(entry.op))
    for mode in ("forward", "noncontiguous", "mixed_devices"):
        result = run(f"_foreach_exp:float32:{mode}")
        assert result.outcome == "mismatch", f"{mode}: {result.outcome}: {result.sentence}"


def test_foreach_catches_a_device_that_accepts_wrong_lists(monkeypatch):
    from torch_openreg.testing.conformance.databases import foreach

    entry = foreach.entries()["_foreach_add"]
    original = entry.op

    def lenient(tensors, *args, **kwargs):
        return original(tensors, *args, **kwargs) if not on_device((tensors, args)) else list(tensors)

    monkeypatch.setattr(entry, "op", lenient)
    result = run("_foreach_add:float32:errors", samples=0)
    assert result.outcome == "mismatch" and "the CPU raises" in result.message


@pytest.mark.parametrize("name", ["_fused_adam_", "_fused_sgd_"])
def test_fused_catches_a_step_that_does_too_much(monkeypatch, name):
    original = getattr(torch.ops.aten, name)
    wrapped = wrong_values(original)
    monkeypatch.setattr(torch.ops.aten, name, lambda *lists, **kwargs: wrapped(*lists, **kwargs))
    assert run(f"{name}:float32:inplace").outcome == "mismatch"


@pytest.mark.parametrize("mode", ["forward", "gradient", "noncontiguous", "state_dict", "copy"])
def test_modules_catch_a_wrong_result(monkeypatch, mode):
    original = torch.nn.functional.linear

    def linear(input, weight, bias=None):
        output = original(input, weight, bias)
        return output if not on_device(input) else output * input.abs().sum()

    monkeypatch.setattr(torch.nn.functional, "linear", linear)
    assert run(f"module.nn.Linear:float32:{mode}").outcome == "mismatch"


def test_modules_catch_a_move_that_loses_values(monkeypatch):
    original = torch.nn.Module.to

    def to(self, *args, **kwargs):
        moved = original(self, *args, **kwargs)
        with torch.no_grad():
            for parameter in moved.parameters():
                if parameter.device.type == "openreg":
                    parameter.zero_()
        return moved

    monkeypatch.setattr(torch.nn.Module, "to", to)
    assert "parameters['weight']" in run("module.nn.Linear:float32:to").message


@pytest.mark.parametrize("mode", ["default", "forloop", "groups", "state_dict", "closure", "mixed", "tensor_lr"])
def test_optimizers_catch_a_wrong_step(monkeypatch, mode):
    original = torch.optim.SGD.step

    def step(self, closure=None):
        loss = original(self, closure)
        with torch.no_grad():
            for parameter in self.param_groups[0]["params"]:
                if parameter.device.type == "openreg":
                    parameter.add_(0.01)
        return loss

    monkeypatch.setattr(torch.optim.SGD, "step", step)
    assert run(f"optim.SGD:float32:{mode}").outcome == "mismatch"


def test_optimizers_catch_a_device_that_refuses_nothing(monkeypatch):
    original = torch.optim.SGD.__init__

    def construct(self, params, *args, **kwargs):
        params = list(params)
        if params and not isinstance(params[0], (dict, tuple)) and params[0].device.type == "openreg":
            args, kwargs = (), {}
        original(self, params, *args, **kwargs)

    monkeypatch.setattr(torch.optim.SGD, "__init__", construct)
    result = run("optim.SGD:float32:errors", samples=0)
    assert result.outcome == "mismatch" and "no error, the CPU raises" in result.message


def test_references_catch_wrong_values(monkeypatch):
    from torch_openreg.testing.conformance.databases import python_ref

    entry = python_ref.entries()["_refs.exp"]
    monkeypatch.setattr(entry, "op", wrong_values(entry.op))
    for mode in ("forward", "prims"):
        assert run(f"_refs.exp:float32:{mode}").outcome == "mismatch", mode


def test_the_index_error_of_a_module_may_come_late():
    """After calls of the same signature the device does not wait for the kernel that finds the index."""
    module = torch.nn.Embedding(10, 3).to("openreg")
    for _ in range(2):
        module(torch.tensor([1, 2], device="openreg"))
    result = run("module.nn.Embedding:float32:errors", samples=0)
    assert result.outcome == "pass", result.sentence
