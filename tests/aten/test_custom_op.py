"""A custom operator that is built outside the tree, against the installed headers and library only: schema, device kernels,
Meta functions and a gradient. The sources are in custom_op/.

Needs the built extension, a C++ compiler and ninja; the build takes about half a minute.
"""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from parity import counted

import torch_openreg

SOURCES = Path(__file__).parent / "custom_op"


def reference(x, slope):
    return torch.where(x > 0, x * x, slope * x)


@pytest.fixture(scope="session")  # a process that gets tests of this file twice must not register the operator twice
def library(tmp_path_factory):
    """The path of the built library, loaded in this process."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(SOURCES))
        # ninja lies beside the interpreter, also when its environment is not activated.
        patch.setenv("PATH", str(Path(sys.executable).parent), prepend=os.pathsep)
        from leaky_square import load

        return load(tmp_path_factory.mktemp("leaky_square"))


@pytest.fixture
def leaky_square(library):
    return torch.ops.example.leaky_square


def test_the_source_includes_installed_headers_only():
    text = (SOURCES / "leaky_square.cpp").read_text()
    for header in re.findall(r'#include "([^"]+)"', text):
        assert os.path.exists(os.path.join(torch_openreg.get_include(), header)), header
    assert not re.search(r"csrc|\.\./", text)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_values(leaky_square, dtype, device):
    for x in (torch.randn(7, 5, dtype=dtype), torch.randn(4, 6, dtype=dtype).t(), torch.randn(3000, dtype=dtype)[::3], torch.randn((), dtype=dtype), torch.randn(0, 3, dtype=dtype)):
        got = leaky_square(x.to(device), 0.25)
        assert got.device == device and got.dtype == dtype and got.is_contiguous()
        torch.testing.assert_close(got.cpu(), reference(x, 0.25), rtol=0, atol=0)


def test_gradients(leaky_square, device):
    x = torch.randn(5, 3, dtype=torch.float64)
    mine, theirs = x.to(device).requires_grad_(), x.clone().requires_grad_()
    weight = torch.randn(5, 3, dtype=torch.float64)
    (leaky_square(mine, 0.1) * weight.to(device)).sum().backward()
    (reference(theirs, 0.1) * weight).sum().backward()
    assert mine.grad.device == device
    torch.testing.assert_close(mine.grad.cpu(), theirs.grad)
    assert torch.autograd.gradcheck(lambda t: leaky_square(t, 0.1), mine)


def test_it_works_in_a_model_with_operators_of_the_package(leaky_square, device):
    torch.manual_seed(0)
    first, second = torch.nn.Linear(3, 8).to(device), torch.nn.Linear(8, 1).to(device)
    x = torch.randn(32, 3, device=device)
    y = x.square().sum(1, keepdim=True)
    optimizer = torch.optim.Adam([*first.parameters(), *second.parameters()], lr=0.02)
    losses = []
    for _ in range(60):
        optimizer.zero_grad()
        loss = torch.nn.functional.mse_loss(second(leaky_square(first(x), 0.1)), y)
        loss.backward()
        optimizer.step()
        losses.append(loss.detach())
    assert losses[-1].item() < losses[0].item() / 4


def test_it_runs_on_the_operands_device_and_current_stream(leaky_square, device):
    assert torch.openreg.current_device() == 0
    x = torch.ones(1000, device=device)
    torch.openreg.synchronize(device)
    stream = torch.openreg.Stream(device)
    with torch.openreg.stream(stream):
        torch.openreg._sleep(100_000_000)
        y = leaky_square(x, 0.1)
    assert not stream.query() and torch.openreg.current_stream(device).query()
    stream.synchronize()
    assert y.sum().item() == 1000


def test_it_leaves_the_counters_alone(leaky_square, device):
    x = torch.ones(4, device=device)
    with counted():
        leaky_square(x, 0.5)
        assert torch.openreg.op_stats() == {}


def test_errors_of_the_call_are_raised_at_the_call(leaky_square, device):
    with pytest.raises(TypeError, match="leaky_square takes float32 and float64, not Half"):
        leaky_square(torch.ones(2, device=device, dtype=torch.float16), 0.1)
    with pytest.raises(NotImplementedError, match="example::leaky_square"):
        leaky_square(torch.ones(2), 0.1)


def test_metadata_without_data(leaky_square):
    x = torch.empty(3, 4, device="meta").t()
    y = leaky_square(x, 0.1)
    assert y.device.type == "meta" and y.shape == (4, 3) and y.is_contiguous()


def test_opcheck_accepts_it(leaky_square, device):
    sample = (torch.randn(3, 4, device=device, requires_grad=True), 0.2)
    # test_autograd_registration is left out: it knows CPU, CUDA and XPU only.
    for utility in ("test_schema", "test_faketensor", "test_aot_dispatch_static", "test_aot_dispatch_dynamic"):
        torch.library.opcheck(leaky_square, sample, test_utils=utility)


def test_it_returns_before_its_kernel_ran(library, python):
    python(
        f"""
        import torch, torch_openreg
        torch.ops.load_library({str(library)!r})
        for index in (1, 0):
            x = torch.ones(8, device=f"openreg:{{index}}")
            flag, one = torch.zeros(1).pin_memory(), torch.ones(1, device=x.device)
            torch.openreg.synchronize(index)
            flag.copy_(one, non_blocking=True)
            y = torch.ops.example.leaky_square(x * 3, 0.1)
            assert flag.item() == 0
            torch.openreg.synchronize(index)
            assert flag.item() == 1 and y.tolist() == [9] * 8
        """,
        env={"OPENREG_SCHEDULE": "lazy"},
    )


def test_the_library_links_the_package_and_no_driver(library):
    needed = subprocess.run(["readelf", "-d", str(library)], capture_output=True, text=True, check=True).stdout
    assert "libtorch_openreg.so" in needed and "libopenreg_" not in needed
