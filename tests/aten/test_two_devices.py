"""Tensors of two devices in one call: an error, as between two accelerators or an accelerator and the host, that leaves the
operands, the current device and the streams as they were.

Needs the built extension.
"""

import pytest
import torch

import torch_openreg  # noqa: F401  (registers the device)

MIXED = {
    "add": lambda a, b: a + b,
    "mm": lambda a, b: a @ b,
    "cat": lambda a, b: torch.cat([a, b]),
    "stack": lambda a, b: torch.stack([b, a]),
    "add_": lambda a, b: a.add_(b),
    "mul out": lambda a, b: torch.mul(a, a, out=b),
    "where": lambda a, b: torch.where(a > 0, a, b),
    "addmm": lambda a, b: torch.addmm(a, a, b),
    "layer_norm": lambda a, b: torch.nn.functional.layer_norm(a, (3,), b[0]),
    "linear": lambda a, b: torch.nn.functional.linear(a, b),
    "gather": lambda a, b: a.gather(0, b.long()),
    "index_select": lambda a, b: a.index_select(0, b[0].long()),
    "masked_fill": lambda a, b: a.masked_fill(b > 0, 1),
    "lerp": lambda a, b: torch.lerp(a, b, 0.5),
    "conv": lambda a, b: torch.nn.functional.conv2d(a[None, None], b[None, None]),
    "sdpa": lambda a, b: torch.nn.functional.scaled_dot_product_attention(a[None, None], b[None, None], b[None, None]),
    "foreach": lambda a, b: torch._foreach_add([a, a], [b, b]),
    "index_put": lambda a, b: a.clone().index_put_((torch.zeros(1, dtype=torch.long, device=b.device),), b[:1]),
    "embedding": lambda a, b: torch.nn.functional.embedding(b.long(), a),
    "eq": lambda a, b: a == b,
}


@pytest.mark.parametrize("other", ["openreg:1", "cpu"])
@pytest.mark.parametrize("swap", [False, True])
@pytest.mark.parametrize("name", MIXED)
def test_mixing_devices_is_an_error_that_changes_nothing(name, swap, other):
    places = ["openreg:0", other]
    for current in (0, 1):
        with torch.openreg.device(current):
            first, second = [torch.ones(3, 3, device=place) for place in (reversed(places) if swap else places)]
            for _ in range(2):
                with pytest.raises(RuntimeError, match="(?i)device|type"):
                    MIXED[name](first, second)
            assert torch.openreg.current_device() == current
            assert first.eq(1).all() and second.eq(1).all() and first.shape == second.shape == (3, 3)
    torch.openreg.synchronize(0), torch.openreg.synchronize(1)


def test_the_message_names_both_devices():
    with pytest.raises(RuntimeError, match="(?s)same device.*openreg:0.*openreg:1"):
        torch.ones(2, device="openreg:0") + torch.ones(2, device="openreg:1")
    with pytest.raises(RuntimeError, match="(?s)same device.*(openreg:0.*cpu|cpu.*openreg:0)"):
        torch.ones(2, device="openreg:0") + torch.ones(2)


def test_index_tensors_may_be_on_the_host_as_on_any_accelerator(device):
    x = torch.arange(12.0).reshape(3, 4)
    for index in (torch.tensor([0, 2]), torch.tensor([True, False, True]), torch.tensor(1)):
        assert torch.equal(x.to(device)[index].cpu(), x[index])
        y = x.to(device)
        y[index] = 5
        want = x.clone()
        want[index] = 5
        assert torch.equal(y.cpu(), want)
    with pytest.raises((RuntimeError, IndexError)):
        x[torch.tensor([0], device=device)]
    with pytest.raises(RuntimeError):
        x.to(device)[torch.tensor([0], device=torch.device("openreg", 1 - device.index))]
