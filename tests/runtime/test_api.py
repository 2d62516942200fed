"""The names of torch.openreg against those of torch.xpu and torch.cuda: each is there with the same parameters, or in a table with its reason.

Needs torch with torch_openreg installed.
"""

import importlib.util
import inspect
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torch_openreg

PATH = Path(__file__).resolve().parents[1] / "repo" / "generate_api.py"
_spec = importlib.util.spec_from_file_location("generate_api", PATH)
generate_api = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(generate_api)

MODULES = {"xpu": torch.xpu, "cuda": torch.cuda}
# Where the two differ from each other, or take what this device does not have.
OTHER_PARAMETERS = {
    "torch.xpu.Event": "torch.xpu knows no blocking and no interprocess events",
    "torch.xpu.MemPool": "torch.cuda has one more, and so has torch.openreg",
    "torch.xpu.can_device_access_peer": "the second parameter has torch.cuda's name",
    "torch.xpu.memory_snapshot": "torch.cuda has one more, and so has torch.openreg",
    "torch.xpu.graph": "torch.cuda has one more, and so has torch.openreg",
    "torch.cuda.graph": "torch.cuda's annotations and its liveness check belong to its own kernels",
}
CASES = [(device, path) for device, module in MODULES.items() for path, _ in generate_api.public_names(module)]


@pytest.mark.parametrize("device,path", CASES, ids=[f"{device}.{path}" for device, path in CASES])
def test_every_name_is_here_or_has_a_reason(device, path):
    full = f"torch.{device}.{path}"
    ours = generate_api.find(path)
    if full in torch_openreg.api_gaps:
        assert ours is None, f"{full} exists here; its line in torch_openreg.api_gaps can go"
        assert torch_openreg.api_gaps[full].endswith(".")
        return
    if full in torch_openreg.api_names:
        assert ours is None and eval(torch_openreg.api_names[full]) is not None
        return
    assert ours is not None, f"torch.openreg.{path} does not exist"
    theirs = dict(generate_api.public_names(MODULES[device]))[path]
    assert callable(ours) == callable(theirs) and inspect.isclass(ours) == inspect.isclass(theirs)
    expected = generate_api.parameters(theirs, device)
    if callable(theirs) and expected is not None:
        assert (generate_api.parameters(ours, "openreg") == expected) != (full in OTHER_PARAMETERS), (inspect.signature(ours), inspect.signature(theirs))


def test_a_name_of_the_tables_that_is_asked_for_is_refused_with_its_reason():
    for name in ("torch.cuda.cudart", "torch.xpu.temperature"):
        with pytest.raises(AttributeError) as refused:
            getattr(torch.openreg, name.rpartition(".")[2])
        assert str(refused.value).endswith(f"has no attribute '{name.rpartition('.')[2]}': {torch_openreg.api_gaps[name]}")
    with pytest.raises(AttributeError, match="has no attribute 'nothing'$"):
        torch.openreg.nothing


def test_the_tables_name_what_exists_and_are_short():
    known = {f"torch.{device}.{path}" for device, path in CASES}
    assert set(torch_openreg.api_gaps) | set(torch_openreg.api_names) <= known
    assert not set(torch_openreg.api_gaps) & set(torch_openreg.api_names)
    assert sum(name.startswith("torch.xpu.") for name in torch_openreg.api_gaps) <= 8


def test_everything_in_the_list_exists_and_the_list_is_sorted():
    assert all(hasattr(torch.openreg, name) for name in torch.openreg.__all__)
    assert sorted(torch.openreg.__all__) == torch.openreg.__all__


def test_the_page_has_the_present_tables():
    text = generate_api.PAGE.read_text()
    assert generate_api.with_table(text) == text, f"run `{Path(sys.executable).name} tests/repo/{PATH.name}`"


def test_the_tables_need_no_torch():
    code = "import sys, torch_openreg; print(len(torch_openreg.api_gaps)); assert 'torch' not in sys.modules"
    root = str(Path(torch_openreg.__file__).resolve().parents[1])
    environment = {"TORCH_OPENREG_DEFER_LOAD": "1", "PYTHONPATH": root}
    assert int(subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True).stdout) == len(torch_openreg.api_gaps)


@pytest.mark.parametrize("name", ["memory_cached", "max_memory_cached", "reset_max_memory_allocated", "reset_max_memory_cached"])
def test_old_names_of_memory_functions_warn_and_work(name, device):
    with pytest.warns(FutureWarning, match="torch.openreg"):
        result = getattr(torch.openreg, name)(device)
    if "cached" in name and not name.startswith("reset"):
        assert result == getattr(torch.openreg, name.replace("cached", "reserved"))(device)


def test_amp_has_the_names_of_torch_cuda_amp(device):
    from torch.openreg.amp import GradScaler, autocast, custom_bwd, custom_fwd

    class Double(torch.autograd.Function):
        @staticmethod
        @custom_fwd(cast_inputs=torch.float32)
        def forward(ctx, x):
            assert not torch.is_autocast_enabled("openreg") and x.dtype == torch.float32
            return x * 2

        @staticmethod
        @custom_bwd
        def backward(ctx, gradient):
            return gradient * 2

    x = torch.ones(3, 3, device=device, dtype=torch.float16, requires_grad=True)
    with autocast(dtype=torch.bfloat16):
        assert (x @ x).dtype == torch.bfloat16
        loss = Double.apply(x).sum()
    scaler = GradScaler(init_scale=4.0)
    scaler.scale(loss).backward()
    assert scaler.is_enabled() and torch.equal(x.grad, torch.full_like(x, 8))
