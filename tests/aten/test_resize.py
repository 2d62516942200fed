"""Tensors, outputs and storages that change their size.

Values, metadata, warnings and errors are compared with the CPU's. Needs the built extension.
"""

import warnings

import pytest
import torch
from parity import check

import torch_openreg  # noqa: F401  (registers the device)


def test_resize_grows_and_keeps_the_values(device):
    x = torch.arange(4.0, device=device)
    x.resize_(3, 5)
    assert x.shape == (3, 5) and x.untyped_storage().nbytes() == 60
    assert x.view(-1)[:4].tolist() == [0, 1, 2, 3]
    x.resize_(2)
    assert x.tolist() == [0, 1] and x.untyped_storage().nbytes() == 60
    x.resize_(1000, 1000)
    assert x.fill_(1).sum().item() == 1e6
    view = torch.arange(6.0, device=device)[2:]
    view.resize_(5)
    assert view.storage_offset() == 2 and view[:4].tolist() == [2, 3, 4, 5]
    check(lambda x: x.resize_(2, 2, 1, 1, memory_format=torch.channels_last), torch.zeros(4), device=device)
    check(lambda x: x.resize_as_(torch.empty(3, 2)), torch.arange(6.0), device=device)


@pytest.mark.parametrize("size", [(-1,), (2, -3)])
def test_resize_to_a_negative_size_is_an_error_and_changes_nothing(size, device):
    x = torch.arange(3.0, device=device)
    with pytest.raises(RuntimeError, match="(?i)negative|-1|-3"):
        x.resize_(*size)
    assert x.tolist() == [0, 1, 2]


OUT_CALLS = {
    "add": lambda x, out: torch.add(x, x, out=out),
    "mul": lambda x, out: torch.mul(x, 2, out=out),
    "sin": lambda x, out: torch.sin(x, out=out),
    "cat": lambda x, out: torch.cat([x, x], out=out),
    "sum": lambda x, out: torch.sum(x, 0, out=out),
    "mm": lambda x, out: torch.mm(x, x, out=out),
    "index_select": lambda x, out: torch.index_select(x, 0, torch.tensor([0, 2], device=x.device), out=out),
    "cumsum": lambda x, out: torch.cumsum(x, 0, out=out),
    "stack": lambda x, out: torch.stack([x, x], out=out),
    "linspace": lambda x, out: torch.linspace(0, 1, 9, out=out),
    "arange": lambda x, out: torch.arange(7, out=out),
    "nonzero": lambda x, out: torch.nonzero(x, out=out.long()),
    "gather": lambda x, out: torch.gather(x, 0, torch.zeros(2, 3, dtype=torch.long, device=x.device), out=out),
}


@pytest.mark.parametrize("name", OUT_CALLS)
@pytest.mark.parametrize("repeat", [1, 3])
def test_an_output_grows_with_a_warning_as_on_the_cpu(name, repeat, device):
    x = torch.arange(1.0, 10.0).reshape(3, 3)

    def call(x, out):
        seen = []
        for _ in range(repeat):
            fresh = out.clone()
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always")
                result = OUT_CALLS[name](x, fresh)
            seen.append([str(w.message).splitlines()[0] for w in caught])
        return result, seen

    for out in (torch.empty(0), torch.zeros(1), torch.zeros(40), torch.zeros(2, 2)):
        check(call, x, out, device=device)


def test_an_output_of_the_right_size_keeps_its_memory_and_strides(device):
    x = torch.arange(12.0).reshape(3, 4)
    out = torch.zeros(4, 3, device=device).t()
    pointer = out.data_ptr()
    torch.mul(x.to(device), 3, out=out)
    assert out.data_ptr() == pointer and out.stride() == (1, 3) and torch.equal(out.cpu(), x * 3)
    slot = torch.zeros(5, 4, device=device)
    torch.exp(x.to(device), out=slot[1:4])
    assert torch.equal(slot.cpu()[1:4], torch.exp(x)) and not slot[0].any() and not slot[4].any()


def test_an_output_of_a_wrong_dtype_is_the_cpus_error(device):
    x = torch.ones(3)
    check(lambda x, out: torch.add(x, 1.5, out=out), x, torch.zeros(3, dtype=torch.int64), device=device)
    check(lambda x, out: torch.add(x, 1.5, out=out), x, torch.zeros(3, dtype=torch.float64), device=device)
    check(lambda x, out: torch.mm(x, x, out=out), torch.ones(2, 2), torch.zeros(2, 2, dtype=torch.float64), device=device)


def test_a_storage_resizes_and_is_shared(device):
    x = torch.arange(4.0, device=device)
    storage = x.untyped_storage()
    storage.resize_(64)
    assert storage.nbytes() == 64 and x.tolist() == [0, 1, 2, 3]
    storage.resize_(8)
    assert storage.nbytes() == 8 and storage.device == device
    with torch.openreg.device(1 - device.index):
        storage.resize_(32)
    assert storage.device == device
    storage.resize_(0)
    assert storage.nbytes() == 0
    storage.resize_(16)
    x.copy_(torch.tensor([4.0, 3, 2, 1]))
    assert x.tolist() == [4, 3, 2, 1]


def test_storages_copy_fill_and_make_tensors(device):
    x = torch.arange(4.0, device=device)
    storage = x.untyped_storage()
    twin = storage.clone()
    assert twin.device == device and twin.nbytes() == 16
    y = torch.empty(0, device=device).set_(twin)
    assert y.shape == (4,) and y.tolist() == [0, 1, 2, 3]
    host = storage.cpu()
    assert torch.empty(0).set_(host).tolist() == [0, 1, 2, 3]
    storage.fill_(0)
    assert x.tolist() == [0] * 4 and y.tolist() == [0, 1, 2, 3]
    storage.copy_(host)
    assert x.tolist() == [0, 1, 2, 3]
    y.set_(x.untyped_storage(), 1, (2,), (2,))
    assert y.tolist() == [1, 3]
    assert torch.UntypedStorage(8, device=device).device == device


def test_data_and_set_share_memory(device):
    x, y = torch.zeros(3, device=device), torch.ones(3, device=device)
    x.data = y
    y.add_(1)
    assert x.tolist() == [2, 2, 2]
    z = torch.empty(0, device=device)
    z.set_(y)
    assert z.is_set_to(y) and z.tolist() == [2, 2, 2]
    z.set_()
    assert z.shape == (0,)
