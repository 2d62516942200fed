"""A training step in its steady state waits for nothing: the host is ahead of the device until somebody reads a result.

torch.openreg.op_stats() counts as `waited` each call in which the host waited. Needs the built package.
"""

import pytest
import torch
import torch_openreg  # noqa: F401

from learning import OPTIMIZERS, TASKS, Training

pytestmark = pytest.mark.usefixtures("one_thread")

WARM_UP = 2
SECOND_NS = 1_000_000_000


def waited():
    """The operators that made the host wait since the last reset."""
    return [name for name, calls in torch.openreg.op_stats().items() if calls["waited"]]


def warm(task, optimizer, device):
    """A training after its warm-up, with reset counters, and the batches of the steps to come."""
    training = Training(task, optimizer, device)
    batches = [training.batch() for _ in range(WARM_UP + 3)]
    for batch in batches[:WARM_UP]:
        training.step(*batch)
    torch.openreg.synchronize(device)
    torch.openreg.reset_op_stats()
    return training, batches[WARM_UP:]


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("task", TASKS)
def test_a_training_step_waits_for_nothing(task, optimizer, device):
    training, batches = warm(task, optimizer, device)
    for batch in batches:
        training.step(*batch)
    assert waited() == []
    torch.openreg.synchronize(device)


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_a_changed_learning_rate_does_not_wait(optimizer, device):
    training, batches = warm("mlp", optimizer, device)
    for number, batch in enumerate(batches):
        training.optimizer.param_groups[0]["lr"] *= 0.5 + 0.1 * number
        training.step(*batch)
    assert waited() == []
    torch.openreg.synchronize(device)


def test_a_learning_rate_schedule_does_not_wait(device):
    training = Training("mlp", "adamw_foreach", device)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(training.optimizer, 10)
    batches = [training.batch() for _ in range(6)]
    for number, batch in enumerate(batches):
        if number == WARM_UP:
            torch.openreg.reset_op_stats()
        training.step(*batch)
        schedule.step()
    assert waited() == []
    torch.openreg.synchronize(device)


def test_batches_from_pinned_memory_do_not_wait(device):
    training, _ = warm("cnn", "sgd", device)
    for _ in range(3):
        inputs, classes = training.task.batch(training.data)
        training.step(inputs.pin_memory().to(device, non_blocking=True), classes.pin_memory().to(device, non_blocking=True))
    assert waited() == []
    torch.openreg.synchronize(device)


@pytest.mark.parametrize("task", TASKS)
def test_the_host_is_back_before_the_device_has_begun(task, device):
    training, batches = warm(task, "adamw_foreach", device)
    begun = torch.openreg.Event()
    with torch.openreg.device(device):
        torch.openreg._sleep(SECOND_NS)
        begun.record()
        training.step(*batches[0])
        assert not begun.query()
    torch.openreg.synchronize(device)


def test_reading_a_loss_is_what_waits(device):
    training, batches = warm("mlp", "sgd", device)
    training.step(*batches[0]).item()
    assert waited() == ["aten::_local_scalar_dense"]
