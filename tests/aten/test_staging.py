"""Operators on a device whose memory the host cannot map (OPENREG_KERNEL_VIEW=off): stream-ordered copies around the CPU's kernels.

Needs torch; each test is a process of its own, because the switch holds for a process.
"""

import os
import subprocess
import sys

import pytest

import torch_openreg

# Where the child finds the package under test: the working directory may hold sources that are not built.
PACKAGE_ROOT = os.path.dirname(os.path.dirname(os.path.abspath(torch_openreg.__file__)))


def run(program, **environment):
    """Runs the program with the kernel view off; it must succeed."""
    environment = {**os.environ, "OPENREG_KERNEL_VIEW": "off", **environment}
    prelude = "import torch, torch_openreg\nfrom torch.testing import assert_close\ntorch.manual_seed(0)\n"
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", prelude + program], env=environment, cwd=PACKAGE_ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("schedule", ["eager", "lazy", "random:2"])
@pytest.mark.parametrize("device", ["openreg:0", "openreg:1"])
def test_a_training_step_is_the_cpus(device, schedule):
    run(
        f"""
import copy
torch.set_num_threads(1)
model = torch.nn.Sequential(torch.nn.Conv2d(1, 4, 3), torch.nn.BatchNorm2d(4), torch.nn.ReLU(), torch.nn.Flatten(), torch.nn.Linear(144, 3))
twin = copy.deepcopy(model).to("{device}")
for step in range(3):
    x, y = torch.randn(5, 1, 8, 8), torch.randint(3, (5,))
    losses = []
    for net, where in ((model, "cpu"), (twin, "{device}")):
        if step == 0:
            net.optimizer = torch.optim.AdamW(net.parameters(), fused=True)
        loss = torch.nn.functional.cross_entropy(net(x.to(where)), y.to(where))
        net.optimizer.zero_grad()
        loss.backward()
        net.optimizer.step()
        losses.append(loss.detach().cpu())
    assert_close(losses[1], losses[0])
assert_close(twin[1].running_mean.cpu(), model[1].running_mean)
""",
        OPENREG_SCHEDULE=schedule,
    )


def test_every_call_is_counted_as_staged():
    run(
        """
x = torch.ones(4, 4, device="openreg")
x @ x, x + x
torch.openreg.reset_op_stats()
x @ x, x + x
torch.openreg.synchronize()
stats = torch.openreg.op_stats()
assert stats["aten::mm"] == {"native": 0, "engine": 0, "staged": 1, "copied": 0, "waited": 0}, stats
assert stats["aten::add.Tensor"]["staged"] == 1 and stats["aten::add.Tensor"]["native"] == 0, stats
"""
    )


def test_views_outs_resizes_and_sparse_tensors_come_back():
    run(
        """
x = torch.randn(4, 6)
d = x.to("openreg")
d[:, ::2].mul_(2)
x[:, ::2].mul_(2)
assert_close(d.cpu(), x)
out = torch.empty(0, device="openreg")
assert_close(torch.cat([d, d], out=out).cpu(), torch.cat([x, x]))
assert_close(d[d > 0].cpu(), x[x > 0])
assert_close(d.to_sparse().add_(d.to_sparse()).to_dense().cpu(), x + x)
assert_close(torch.fft.ifft(torch.fft.fft(d)).conj().cpu(), torch.fft.ifft(torch.fft.fft(x)).conj())
assert torch.rand(5, device="openreg").cpu().max() < 1
"""
    )


def test_a_late_error_is_raised_and_the_stream_goes_on():
    run(
        """
x = torch.ones(2, 3, device="openreg")
for column in (1, 2, 9):
    x.gather(1, torch.tensor([[column]], device="openreg"))
try:
    torch.openreg.synchronize()
    raise SystemExit("no error")
except torch.AcceleratorError as error:
    assert "aten::gather" in str(error)
assert (x + 1).sum().item() == 12
"""
    )
