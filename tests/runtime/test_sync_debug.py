"""Sync debug mode: which calls count as making the host wait, and what they do then.

Needs torch with torch_openreg installed.
"""

import pytest
import torch
import torch_openreg  # noqa: F401

WAITING = {
    "item": lambda x: x[0].item(),
    "bool": lambda x: bool(x[0] > 0),
    "cpu": lambda x: x.cpu(),
    "tolist": lambda x: x.tolist(),
    "nonzero": lambda x: x.nonzero(),
    "mask": lambda x: x[x > 0],
    "unique": lambda x: x.unique(),
    "upload": lambda x: torch.zeros(10_000).to(x.device),
    "stream": lambda x: torch.openreg.current_stream(x.device).synchronize(),
}
SILENT = {
    "arithmetic": lambda x: (x * 2 + 1).softmax(0),
    "device": lambda x: torch.openreg.synchronize(x.device),
    "event": lambda x: x.device and torch.openreg.Event().synchronize(),
    "pinned": lambda x: torch.zeros(10_000).pin_memory(x.device).to(x.device, non_blocking=True),
    "new signature": lambda x: torch.ones(3, dtype=torch.int16, device=x.device).cumsum(0, dtype=torch.int8),
    "other tensors": lambda x: torch.zeros(3).sum().item(),
}


@pytest.fixture
def mode():
    yield torch.openreg.set_sync_debug_mode
    torch.openreg.set_sync_debug_mode(0)


@pytest.mark.parametrize("name", WAITING)
def test_a_call_that_waits_is_refused_or_warned_of(name, mode, device):
    x = torch.arange(1.0, 5.0, device=device)
    expected = WAITING[name](x)
    mode("error")
    with pytest.raises(RuntimeError, match="makes the host wait"):
        WAITING[name](x)
    mode("warn")
    with pytest.warns(UserWarning, match="makes the host wait"):
        result = WAITING[name](x)
    torch.testing.assert_close(result, expected)


@pytest.mark.parametrize("name", SILENT)
def test_other_calls_pass(name, mode, device):
    x = torch.arange(1.0, 5.0, device=device)
    mode(2)
    SILENT[name](x)
    torch.openreg.synchronize(device)


def test_the_error_names_the_operator(mode):
    x = torch.ones(3, device="openreg")
    mode("error")
    with pytest.raises(RuntimeError, match="^aten::nonzero makes"):
        x.nonzero()


def test_a_refused_call_has_done_nothing(mode):
    x, host = torch.ones(3, device="openreg"), torch.zeros(3)
    mode("error")
    with pytest.raises(RuntimeError):
        host.copy_(x)
    mode("default")
    torch.openreg.synchronize()
    assert host.tolist() == [0, 0, 0]


@pytest.mark.parametrize("wrong", ["loud", 3, -1, True, None])
def test_a_mode_that_does_not_exist_changes_nothing(wrong, mode):
    mode("warn")
    with pytest.raises(RuntimeError, match="'default' .0., 'warn' .1. or 'error' .2."):
        torch.openreg.set_sync_debug_mode(wrong)
    assert torch.openreg.get_sync_debug_mode() == 1
