"""A training script with checkpoints survives a plan of 20 faults, and ends with the weights of an undisturbed run, bit for bit.

The script does what a careful user's does: it commits a step only after a wait, verifies what it copies, and on an error brings the device
back and goes on from its last checkpoint. Needs the built extension and the simulator.
"""

SCRIPT = """
import io
import torch
import torch_openreg
from torch import nn

STEPS, EVERY = 60, 3
torch.set_num_threads(1)


class Corrupted(RuntimeError):
    pass


def upload(tensor):
    # A copy that arrived is one that reads back the same.
    arrived = tensor.to("openreg")
    if not arrived.cpu().equal(tensor):
        raise Corrupted
    return arrived


def batch(step):
    generator = torch.Generator().manual_seed(step)
    inputs = torch.randn(16, 8, generator=generator)
    return upload(inputs), upload((inputs.sum(1) > 0).long())


def fresh():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, 32), nn.Tanh(), nn.Linear(32, 2))
    return {"step": 0, "model": model.state_dict(), "momentum": [torch.zeros_like(p) for p in model.parameters()]}


def restore(checkpoint):
    model = nn.Sequential(nn.Linear(8, 32), nn.Tanh(), nn.Linear(32, 2)).to("openreg")
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.copy_(upload(checkpoint["model"][name]))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    for parameter, momentum in zip(model.parameters(), checkpoint["momentum"]):
        optimizer.state[parameter]["momentum_buffer"] = upload(momentum)
    return model, optimizer


def download(tensor):
    first, second = tensor.detach().cpu(), tensor.detach().cpu()
    if not first.equal(second):
        raise Corrupted
    return first


def save(step, model, optimizer):
    return {
        "step": step,
        "model": {name: download(parameter) for name, parameter in model.named_parameters()},
        "momentum": [download(optimizer.state[parameter]["momentum_buffer"]) for parameter in model.parameters()],
    }


def recover():
    # Until the device has no error left to tell.
    while True:
        try:
            torch.openreg.synchronize()
            return
        except torch.AcceleratorError:
            if torch.openreg.is_lost():
                torch.openreg.reset()


def train():
    checkpoint, restarts = fresh(), 0
    while checkpoint["step"] < STEPS:
        try:
            model, optimizer = restore(checkpoint)
            for step in range(checkpoint["step"], STEPS):
                inputs, classes = batch(step)
                optimizer.zero_grad()
                nn.functional.cross_entropy(model(inputs), classes).backward()
                optimizer.step()
                torch.openreg.synchronize()
                if (step + 1) % EVERY == 0:
                    checkpoint = save(step + 1, model, optimizer)
        except (torch.OutOfMemoryError, torch.AcceleratorError, Corrupted):
            restarts += 1
            recover()
    return checkpoint, restarts


expected, restarts = train()
assert restarts == 0

PLAN = "; ".join([
    "alloc:40=oom", "alloc:300=oom", "alloc:700=oom",
    "launch:aten::addmm#17=error", "launch:aten::addmm#63=error", "launch:aten::mm#40=error", "launch:*#900=error",
    "copy:5=error", "copy:160=error", "copy:openreg::copy_to_host#150=error",
    "copy:openreg::copy_from_host#29=corrupt,seed=1", "copy:openreg::copy_from_host#77=corrupt,seed=2", "copy:openreg::copy_from_host#120=corrupt,seed=3",
    "device:0#450=lost", "device:0#1500=lost",
    "launch:aten::addmm#90=hang", "copy:270=hang",
    "launch:aten::mm#60=delay:5ms", "copy:30=delay:5ms", "alloc:100=delay:1ms",
])
assert PLAN.count(";") == 19

with torch.openreg.faults(PLAN) as report:
    survived, restarts = train()

assert not report.waiting and report.count == 20, str(report)
assert restarts >= 15, restarts
assert survived["step"] == expected["step"] == STEPS
for name, weight in expected["model"].items():
    assert survived["model"][name].equal(weight), name
for before, after in zip(expected["momentum"], survived["momentum"]):
    assert before.equal(after)
print("restarts", restarts)
"""


def test_training_survives_twenty_faults_and_ends_with_the_same_weights(python):
    result = python(SCRIPT, env={"OPENREG_STALL_SECONDS": "0.3", "OPENREG_STALL_ACTION": "abandon"}, timeout=300)
    assert "restarts" in result.stdout
