"""Files: torch.save and torch.load in all formats, torch.package, torch.jit, distributed checkpoints of one process, and safetensors.

Needs the built extension; the safetensors tests need that package.
"""

import collections
import io
import os

import pytest
import torch
from torch.testing._internal.two_tensor import TwoTensor

import torch_openreg  # noqa: F401  (registers the device)


@pytest.fixture(params=["zip", "legacy"])
def saved(request, device, tmp_path):
    """A file with device and host tensors and a view, and what it holds."""
    base = torch.arange(6.0, device=device)
    content = {"x": base, "view": base[2:4], "host": torch.ones(2), "half": torch.ones(3, device=device, dtype=torch.bfloat16)}
    path = tmp_path / "file.pt"
    torch.save(content, path, _use_new_zipfile_serialization=request.param == "zip")
    return path, request.param


def locations(device):
    other = torch.device("openreg", 1 - device.index)
    return {
        "none": (None, device),
        "cpu": ("cpu", "cpu"),
        "torch.device": (torch.device("cpu"), "cpu"),
        "index": (str(other), other),
        "device": (other, other),
        "current": ("openreg", "openreg:0"),
        "dict": ({str(device): str(other)}, other),
        "dict to cpu": ({str(device): "cpu"}, "cpu"),
        "dict of others": ({"cuda:0": "cpu"}, device),
        "function to cpu": (lambda storage, location: storage, "cpu"),
        "function": (lambda storage, location: storage.openreg(other.index) if location == str(device) else storage, other),
        "function that declines": (lambda storage, location: None, device),
    }


@pytest.mark.parametrize("location", locations(torch.device("openreg", 0)))
@pytest.mark.parametrize("weights_only", [True, False], ids=["weights_only", "pickle"])
def test_map_location_in_every_form(saved, location, weights_only, device):
    path, _ = saved
    where, expected = locations(device)[location]
    loaded = torch.load(path, map_location=where, weights_only=weights_only)
    assert loaded["x"].device == loaded["view"].device == loaded["half"].device == torch.device(expected)
    assert loaded["x"].tolist() == [0, 1, 2, 3, 4, 5] and loaded["half"].tolist() == [1, 1, 1]
    loaded["view"].zero_()
    assert loaded["x"].tolist() == [0, 1, 0, 0, 4, 5] and loaded["host"].tolist() == [1, 1]


def test_a_device_that_is_not_there_is_named(saved):
    with pytest.raises(RuntimeError, match="OPENREG device 7 but torch.openreg.device_count.. is 2. Please use torch.load with map_location"):
        torch.load(saved[0], map_location="openreg:7")


def test_a_file_of_more_devices_is_loaded_where_there_are_fewer(saved, device, python):
    result = python(
        f"""
        import torch, torch_openreg
        try:
            print(torch.load({str(saved[0])!r})["x"].device)
        except RuntimeError as error:
            print(error)
        print(torch.load({str(saved[0])!r}, map_location="openreg")["x"].device)
        """,
        env={"OPENREG_DEVICES": "1"},
    ).stdout.splitlines()
    assert ("openreg:0" if device.index == 0 else "OPENREG device 1 but torch.openreg.device_count() is 1. Please use torch.load with map_location") in result[0] and result[1] == "openreg:0"


def test_mapped_files_load_to_every_place(saved, device):
    path, kind = saved
    if kind == "legacy":
        with pytest.raises(RuntimeError, match="mmap"):
            torch.load(path, mmap=True)
        return
    for where, expected in ((None, device), ("cpu", "cpu"), ("openreg:1", "openreg:1")):
        loaded = torch.load(path, map_location=where, mmap=True)
        assert loaded["x"].device == torch.device(expected) and loaded["view"].tolist() == [2, 3]


def test_queued_work_is_in_the_file(python):
    python(
        """
        import io, torch, torch_openreg
        x = torch.ones(4, device="openreg:1")
        y = x * 3 + 1
        buffer = io.BytesIO()
        torch.save(y, buffer)
        buffer.seek(0)
        assert torch.load(buffer).tolist() == [4, 4, 4, 4]
        """,
        env={"OPENREG_SCHEDULE": "lazy"},
    )


def test_other_kinds_of_tensors_keep_their_kind(device, tmp_path):
    kinds = {
        "sparse": torch.eye(3, device=device).to_sparse(),
        "compressed": torch.eye(3, device=device).to_sparse_csr(),
        "quantized": torch.quantize_per_tensor(torch.ones(3, device=device), 0.5, 1, torch.qint8),
        "conjugate": torch.ones(2, dtype=torch.complex64, device=device).conj(),
        "parameter": torch.nn.Parameter(torch.ones(2, device=device)),
        "subclass": TwoTensor(torch.ones(2, device=device), torch.zeros(2, device=device)),
        "empty": torch.empty(0, 2, device=device),
    }
    for name, x in kinds.items():
        torch.save(x, tmp_path / name)
        loaded = torch.load(tmp_path / name, weights_only=name != "subclass")
        assert type(loaded) is type(x) and (loaded.device, loaded.layout, loaded.dtype, loaded.is_conj()) == (device, x.layout, x.dtype, x.is_conj()), name
        assert torch.load(tmp_path / name, weights_only=name != "subclass", map_location="cpu").device.type == "cpu", name


def test_fake_tensors_and_skipped_data(saved, device, tmp_path):
    path, kind = saved
    if kind == "zip":
        with torch._subclasses.FakeTensorMode():
            assert torch.load(path)["x"].device == device
    with torch.serialization.skip_data():
        torch.save(torch.ones(100_000, device=device), tmp_path / "skipped.pt")
    loaded = torch.load(tmp_path / "skipped.pt")
    assert loaded.device == device and loaded.shape == (100_000,)


def test_an_optimizers_state_moves_with_its_parameters(device):
    model = torch.nn.Linear(3, 2).to(device)
    optimizer = torch.optim.AdamW(model.parameters())
    model(torch.ones(1, 3, device=device)).sum().backward()
    optimizer.step()
    buffer = io.BytesIO()
    torch.save(optimizer.state_dict(), buffer)
    for place in ("cpu", device):
        buffer.seek(0)
        twin = torch.nn.Linear(3, 2).to(device)
        other = torch.optim.AdamW(twin.parameters())
        other.load_state_dict(torch.load(buffer, map_location=place))
        assert other.state[twin.weight]["exp_avg"].device == device
        assert torch.equal(other.state[twin.weight]["exp_avg"], optimizer.state[model.weight]["exp_avg"])


@pytest.mark.filterwarnings("ignore:TypedStorage is deprecated")
def test_packages_hold_tensors_and_views(device, tmp_path):
    base = torch.arange(4.0, device=device)
    with torch.package.PackageExporter(tmp_path / "package.pt") as exporter:
        exporter.save_pickle("data", "tensors.pkl", {"x": base, "view": base[1:]})
    importer = torch.package.PackageImporter(tmp_path / "package.pt")
    for where, expected in ((None, device), ("cpu", "cpu"), ("openreg:1", "openreg:1")):
        loaded = importer.load_pickle("data", "tensors.pkl", map_location=where)
        assert loaded["x"].device == torch.device(expected) and loaded["x"].tolist() == [0, 1, 2, 3]
        loaded["view"].zero_()
        assert loaded["x"].tolist() == [0, 0, 0, 0]


@pytest.mark.filterwarnings("ignore:.*torch.jit.*:DeprecationWarning")
def test_traced_modules_are_saved_and_loaded(device, tmp_path):
    model = torch.nn.Linear(2, 2).to(device)
    x = torch.ones(1, 2, device=device)
    torch.jit.trace(model, x).save(tmp_path / "traced.pt")
    loaded = torch.jit.load(tmp_path / "traced.pt")
    assert {p.device for p in loaded.parameters()} == {device} and torch.equal(loaded(x), model(x))
    assert {p.device.type for p in torch.jit.load(tmp_path / "traced.pt", map_location="cpu").parameters()} == {"cpu"}


def trained(device):
    model = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.Linear(4, 1)).to(device)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1)
    for _ in range(2):
        model(torch.ones(2, 3, device=device)).sum().backward()
        optimizer.step()
    return model, optimizer


@pytest.mark.filterwarnings("ignore:torch.distributed is disabled")
@pytest.mark.parametrize("how", ["save", "async_save"])
def test_distributed_checkpoints_of_one_process(how, device, tmp_path):
    import torch.distributed.checkpoint as checkpoint
    from torch.distributed.checkpoint.state_dict import get_state_dict, set_state_dict

    model, optimizer = trained(device)
    weights, state = get_state_dict(model, optimizer)
    # Core copies without waiting, and then waits for a stream of the current device, whichever device the tensors are on.
    with torch.openreg.device(device):
        waiting = getattr(checkpoint, how)({"model": weights, "optimizer": state}, checkpoint_id=tmp_path / "checkpoint")
        if how == "async_save":
            waiting.result()
    other, second = trained(device)
    with torch.no_grad():
        other[0].weight.zero_()
    weights, state = get_state_dict(other, second)
    checkpoint.load({"model": weights, "optimizer": state}, checkpoint_id=tmp_path / "checkpoint")
    set_state_dict(other, second, model_state_dict=weights, optim_state_dict=state)
    for got, expected in zip(other.parameters(), model.parameters()):
        assert got.device == device and torch.equal(got, expected)
        assert torch.equal(second.state[got]["exp_avg"], optimizer.state[expected]["exp_avg"])


@pytest.fixture
def safetensors():
    return pytest.importorskip("safetensors.torch", reason="the package safetensors is not installed (pip install torch_openreg[test])")


def test_safetensors_files_hold_device_tensors(safetensors, device, tmp_path):
    content = collections.OrderedDict(x=torch.arange(6.0, device=device), y=torch.ones(2, device=device, dtype=torch.bfloat16))
    path = os.fspath(tmp_path / "file.safetensors")
    safetensors.save_file(content, path, metadata={"format": "pt"})
    loaded = {name: tensor.to(device) for name, tensor in safetensors.load_file(path).items()}
    assert all(torch.equal(loaded[name], content[name]) and loaded[name].device == device for name in content)
    model, twin = torch.nn.Linear(2, 2).to(device), torch.nn.Linear(2, 2).to(device)
    safetensors.save_model(model, path)
    safetensors.load_model(twin, path)
    assert torch.equal(twin.weight, model.weight) and twin.weight.device == device


def test_safetensors_does_not_know_the_device_by_name(safetensors, device, tmp_path):
    """What docs/sharing.md says. When this fails, load_file(device=...) works, and the page must say so."""
    path = os.fspath(tmp_path / "file.safetensors")
    safetensors.save_file({"x": torch.ones(2)}, path)
    with pytest.raises(Exception, match=f"device {device} is invalid"):
        safetensors.load_file(path, device=str(device))


def test_a_file_is_read_by_a_torch_without_the_device(saved, python):
    path, form = saved
    result = python(
        f"""
        import torch
        loaded = torch.load({str(path)!r}, map_location="cpu", weights_only={form == "zip"})
        assert loaded["x"].tolist() == [0, 1, 2, 3, 4, 5] and loaded["view"].data_ptr() == loaded["x"].data_ptr() + 8
        try:
            torch.load({str(path)!r}, weights_only=False)
        except RuntimeError as error:
            print(error)
        assert not hasattr(torch, "openreg")
        """,
        env={"TORCH_DEVICE_BACKEND_AUTOLOAD": "0"},
    )
    assert "tagged with openreg" in result.stdout


def test_a_sharded_state_is_put_together_on_any_device(device, tmp_path):
    """Each file holds a part of the state; files are read one by one, to where their tensors belong."""
    torch.manual_seed(1)
    model = torch.nn.Sequential(*(torch.nn.Linear(6, 6) for _ in range(4))).to(device)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1)
    model(torch.ones(2, 6, device=device)).sum().backward()
    optimizer.step()
    names = list(model.state_dict())
    for part in range(3):
        torch.save({name: model.state_dict()[name] for name in names[part::3]}, tmp_path / f"part{part}.pt")
    torch.save(optimizer.state_dict(), tmp_path / "optimizer.pt")

    other = torch.device("openreg", 1 - device.index)
    fresh = torch.nn.Sequential(*(torch.nn.Linear(6, 6) for _ in range(4))).to(other)
    state = {}
    for part in range(3):
        state.update(torch.load(tmp_path / f"part{part}.pt", map_location=other, mmap=True))
    fresh.load_state_dict(state, assign=True)
    again = torch.optim.AdamW(fresh.parameters(), lr=0.5)
    again.load_state_dict(torch.load(tmp_path / "optimizer.pt", map_location="cpu"))
    assert again.param_groups[0]["lr"] == 0.1 and all(p.device == other for p in fresh.parameters())
    for m, o in ((model, optimizer), (fresh, again)):
        o.zero_grad()
        m(torch.ones(2, 6, device=next(m.parameters()).device)).sum().backward()
        o.step()
    for one, two in zip(model.parameters(), fresh.parameters()):
        assert torch.equal(one.cpu(), two.cpu())
    assert all(value.device == other for entry in again.state.values() for name, value in entry.items() if name != "step")
