"""Trainings on generated tasks follow the CPU's loss curve, learn the known answer, and continue from checkpoints.

Every device is trained while device 0 is the current one. Needs the built package.
"""

import functools
import io
from pathlib import Path

import pytest
import torch
import torch_openreg  # noqa: F401

from learning import OPTIMIZERS, TASKS, Training

pytestmark = pytest.mark.usefixtures("one_thread")

STEPS = 40
TOLERANCE = {"rtol": 1e-4, "atol": 1e-5}


@functools.cache
def cpu_curve(task, optimizer):
    return Training(task, optimizer, "cpu").curve(STEPS)


def assert_same_curve(found, expected):
    torch.testing.assert_close(torch.tensor(found), torch.tensor(expected), **TOLERANCE)


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("task", TASKS)
def test_the_loss_curve_is_the_cpus(task, optimizer, device):
    assert_same_curve(Training(task, optimizer, device).curve(STEPS), cpu_curve(task, optimizer))
    assert torch.openreg.current_device() == 0


@pytest.mark.parametrize("task", TASKS)
def test_the_known_answer_is_learned(task, device):
    training = Training(task, "adam", device)
    training.curve(200)
    assert training.accuracy() > 0.9


@pytest.mark.parametrize("schedule", ["lazy", "random:1"])
def test_the_loss_curve_does_not_depend_on_the_schedule(schedule, python):
    result = python(
        f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r})",
        """
        import torch, torch_openreg
        from learning import OPTIMIZERS, TASKS, Training
        torch.set_num_threads(1)
        for task in TASKS:
            for optimizer, device in zip(OPTIMIZERS, ("openreg:0", "openreg:1") * 2):
                print(task, optimizer, *Training(task, optimizer, device).curve(20))
        """,
        env={"OPENREG_SCHEDULE": schedule},
    )
    lines = [line.split() for line in result.stdout.splitlines()]
    assert len(lines) == len(TASKS) * len(OPTIMIZERS)
    for task, optimizer, *losses in lines:
        assert_same_curve([float(loss) for loss in losses], cpu_curve(task, optimizer)[:20])


@pytest.mark.parametrize("source, target", [("openreg:0", "openreg:1"), ("openreg:1", "cpu"), ("cpu", "openreg:1"), ("openreg:0", None)])
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_a_checkpoint_continues_the_curve_elsewhere(optimizer, source, target):
    """`target` None: without map_location, where it was."""
    half = STEPS // 2
    first = Training("cnn", optimizer, source)
    losses = first.curve(half)
    file = io.BytesIO()
    torch.save(first.state(), file)
    file.seek(0)
    state = torch.load(file, map_location=target)
    place = torch.device(target or source)
    assert {tensor.device for tensor in state["model"].values()} == {place}
    second = Training("cnn", optimizer, place, seed=1)
    second.load(state)
    assert_same_curve(losses + second.curve(half), cpu_curve("cnn", optimizer))
