"""Device tensors and modules that are copied, pickled, saved and loaded: values, strides, places, and shared storages.

Needs the built extension.
"""

import copy
import io
import pickle

import pytest
import torch

import torch_openreg  # noqa: F401  (registers the device)


def tensors(device):
    base = torch.arange(12.0, device=device).reshape(3, 4)
    yield base
    yield base.t()
    yield base[1:, ::2]
    yield torch.ones(3, device=device, dtype=torch.bfloat16).requires_grad_()
    yield torch.nn.Parameter(torch.ones(2, device=device))
    yield torch.tensor([1 + 2j, 3 - 1j], device=device)
    yield torch.empty(0, 3, device=device)
    yield torch.tensor(5, device=device)


def duplicates(x):
    buffer = io.BytesIO()
    torch.save(x, buffer)
    yield "deepcopy", copy.deepcopy(x)
    yield "copy", copy.copy(x)
    yield "pickle", pickle.loads(pickle.dumps(x))
    buffer.seek(0)
    yield "save", torch.load(buffer)
    buffer.seek(0)
    yield "unsafe save", torch.load(buffer, weights_only=False)


def test_deepcopy_pickle_and_save_keep_everything(device):
    for x in tensors(device):
        for name, twin in duplicates(x):
            assert type(twin) is type(x), name
            assert (twin.device, twin.dtype, twin.shape, twin.stride(), twin.requires_grad) == (
                device, x.dtype, x.shape, x.stride(), x.requires_grad,
            ), name
            assert torch.equal(twin.cpu(), x.cpu()), name


def test_views_of_one_storage_stay_views_when_saved_and_copied(device):
    base = torch.zeros(4, device=device)
    buffer = io.BytesIO()
    torch.save((base, base[1:3]), buffer)
    buffer.seek(0)
    for twin, view in (torch.load(buffer), copy.deepcopy((base, base[1:3]))):
        view.fill_(5)
        assert twin.tolist() == [0, 5, 5, 0]


def test_map_location_moves_between_devices_and_host(device):
    x = torch.arange(3.0, device=device)
    buffer = io.BytesIO()
    torch.save({"x": x, "y": torch.ones(2)}, buffer)
    other = torch.device("openreg", 1 - device.index)
    for location, expected in (("cpu", "cpu"), (str(other), other), (other, other), ({str(device): str(other)}, other), (None, device)):
        buffer.seek(0)
        loaded = torch.load(buffer, map_location=location)
        assert loaded["x"].device == torch.device(expected) and loaded["x"].tolist() == [0, 1, 2]
    buffer = io.BytesIO()
    torch.save(torch.arange(3.0), buffer)
    buffer.seek(0)
    assert torch.load(buffer, map_location=device).device == device


def test_a_module_travels_whole(device):
    model = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.BatchNorm1d(4), torch.nn.Linear(4, 1)).to(device)
    assert {p.device for p in model.parameters()} | {b.device for b in model.buffers()} == {device}
    twin = copy.deepcopy(model)
    x = torch.randn(5, 3, device=device)
    assert torch.equal(model(x).cpu(), twin(x).cpu())
    buffer = io.BytesIO()
    torch.save(model.state_dict(), buffer)
    buffer.seek(0)
    fresh = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.BatchNorm1d(4), torch.nn.Linear(4, 1))
    fresh.load_state_dict(torch.load(buffer, map_location="cpu"))
    model.eval(), fresh.eval()
    torch.testing.assert_close(fresh(x.cpu()), model(x).cpu())


def test_numpy_refuses_and_says_how(device):
    x = torch.ones(2, device=device)
    with pytest.raises(TypeError, match="cpu"):
        x.numpy()
    assert x.numpy(force=True).tolist() == [1, 1]
