"""Serialization (L4): torch.save and torch.load, where tensors come back, and what of them survives."""

import copy
import io
import pickle
import tempfile
from pathlib import Path

import torch

from . import check


def _file(value) -> io.BytesIO:
    file = io.BytesIO()
    torch.save(value, file)
    file.seek(0)
    return file


def _device(probe, found, wanted, what: str) -> None:
    same = found.type == wanted.type and (wanted.index is None or found.index == wanted.index)
    probe.expect(same, f"{what} is on {found}, expected {wanted}")


@check
def a_tensor_comes_back_to_its_device(probe):
    "torch.load without map_location brings a tensor back to the device that it was saved from, in both formats."
    x = torch.arange(6.0).to(probe.device)
    for zipped in (True, False):
        file = io.BytesIO()
        torch.save(x, file, _use_new_zipfile_serialization=zipped)
        file.seek(0)
        back = torch.load(file)
        _device(probe, back.device, probe.device, "a tensor that was loaded without map_location")
        probe.expect(torch.equal(back.cpu(), torch.arange(6.0)), f"0 to 5 come back as {back.cpu().tolist()}")


@check
def map_location_is_followed(probe):
    "map_location as a name, a torch.device, a dictionary and a function says where tensors come back to."
    kind, name, cpu = probe.type, str(probe.device), torch.device("cpu")
    here = _file(torch.arange(4.0).to(probe.device))
    there = _file(torch.arange(4.0))
    places = {
        "'cpu'": (here, "cpu", cpu),
        "torch.device('cpu')": (here, cpu, cpu),
        f"{{{name!r}: 'cpu'}}": (here, {name: "cpu"}, cpu),
        "a function that returns the storage": (here, lambda storage, location: storage.cpu(), cpu),
        repr(name): (there, name, probe.device),
        f"torch.device({name!r})": (there, probe.device, probe.device),
        repr(kind): (there, kind, torch.device(kind)),
        f"{{'cpu': {name!r}}}": (there, {"cpu": name}, probe.device),
    }
    for what, (file, place, wanted) in places.items():
        file.seek(0)
        back = torch.load(file, map_location=place)
        _device(probe, back.device, wanted, f"what map_location={what} loads")
        probe.expect(back.cpu().tolist() == [0, 1, 2, 3], f"0 to 3 come back as {back.cpu().tolist()} with map_location={what}")


@check
def every_dtype_survives(probe):
    "Tensors of every dtype that the device holds come back with their dtype and their values."
    values = torch.tensor([0.0, 1, 2, 3, 1, 0])
    for name in ("float32", "float64", "float16", "bfloat16", "int8", "uint8", "int16", "int32", "int64", "bool", "complex64"):
        try:
            x = values.to(getattr(torch, name)).to(probe.device)
        except (RuntimeError, TypeError):  # the device has no such dtype, which is for the operators' level to say
            continue
        back = torch.load(_file(x))
        probe.expect(back.dtype == x.dtype, f"a tensor of {name} comes back as {back.dtype}")
        probe.expect(torch.equal(back.cpu(), x.cpu()), f"a tensor of {name} comes back with other values")


@check
def views_of_one_memory_stay_views(probe):
    "Tensors that share memory share it after loading, each with its strides and offset."
    base = torch.arange(12.0).to(probe.device)
    views = {"whole": base, "part": base[4:8], "transposed": base.view(3, 4).t()}
    loaded = torch.load(_file(views))
    for name, view in views.items():
        found, wanted = (loaded[name].stride(), loaded[name].storage_offset()), (view.stride(), view.storage_offset())
        probe.expect(found == wanted, f"strides and offset of {name} are {found}, expected {wanted}")
    loaded["whole"].zero_()
    for name in ("part", "transposed"):
        probe.expect(not bool(loaded[name].cpu().any()), f"{name} does not share the memory of the whole any more")


class Labelled(torch.Tensor):
    """A subclass with an attribute."""

    label = ""


@check
def subclasses_stay_subclasses(probe):
    "A tensor of a subclass comes back to the device as one, with its attributes."
    x = torch.ones(3).to(probe.device).as_subclass(Labelled)
    x.label = "three ones"
    back = torch.load(_file(x), weights_only=False)
    found = type(back).__name__, getattr(back, "label", "")
    probe.expect(found == ("Labelled", x.label), f"a subclass with a label comes back as {found[0]} {found[1]!r}")
    _device(probe, back.device, probe.device, "a loaded subclass")


@check
def parameters_stay_parameters(probe):
    "Parameters, buffers and requires_grad come back as they were."
    module = torch.nn.BatchNorm1d(3).to(probe.device)
    loaded = torch.load(_file({"state": module.state_dict(), "parameter": module.weight, "leaf": torch.ones(2, device=probe.device, requires_grad=True)}))
    probe.expect(isinstance(loaded["parameter"], torch.nn.Parameter), f"a Parameter comes back as {type(loaded['parameter']).__name__}")
    probe.expect(loaded["parameter"].requires_grad and loaded["leaf"].requires_grad, "requires_grad is lost")
    probe.expect(list(loaded["state"]) == list(module.state_dict()), f"the state has {list(loaded['state'])}")
    for name, value in loaded["state"].items():
        _device(probe, value.device, probe.device, f"{name} of a state_dict")


@check
def files_load_with_and_without_weights_only(probe):
    "weights_only=True loads a state_dict of the device, and weights_only=False a whole module."
    module = torch.nn.Linear(3, 2).to(probe.device)
    state = torch.load(_file(module.state_dict()), weights_only=True)
    whole = torch.load(_file(module), weights_only=False)
    for name, value in (("state_dict", state["weight"]), ("module", whole.weight)):
        _device(probe, value.device, probe.device, f"the weight of a loaded {name}")
        probe.expect(torch.equal(value.cpu(), module.weight.cpu()), f"the weight of a loaded {name} has other values")


@check
def mapped_files_load(probe):
    "torch.load with mmap=True brings the tensors of a file to the device, and to the CPU."
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "x.pt"
        torch.save({"x": torch.arange(2000.0).to(probe.device)}, path)
        for wanted in (probe.device, torch.device("cpu")):
            back = torch.load(path, mmap=True, map_location=wanted)["x"]
            _device(probe, back.device, wanted, "a tensor of a mapped file")
            probe.expect(torch.equal(back.cpu(), torch.arange(2000.0)), "the values of a mapped file are wrong")
            del back


@check
def a_device_that_is_not_there_is_named(probe):
    "Loading to a device index that does not exist raises an error that names it."
    probe.needs_accelerator()
    index = torch.accelerator.device_count() + 5
    name = f"{probe.type}:{index}"
    try:
        back = torch.load(_file(torch.ones(2)), map_location=name)
    except (RuntimeError, AssertionError) as error:
        probe.expect(str(index) in str(error), f"the error does not name {name}: {str(error)[:200]}")
        return
    probe.expect(False, f"map_location={name!r} raised nothing and loaded to {back.device}")


@check
def training_goes_on_from_a_file(probe):
    "A model and its optimizer go through files to a new pair on the device, which takes the same next step."

    def pair():
        torch.manual_seed(0)
        model = torch.nn.Linear(3, 2).to(probe.device)
        return model, torch.optim.Adam(model.parameters(), lr=0.1)

    def step(model, optimizer):
        optimizer.zero_grad()
        model(torch.ones(2, 3, device=probe.device)).pow(2).sum().backward()
        optimizer.step()
        return model.weight.detach().cpu()

    first = pair()
    step(*first)
    files = [_file(part.state_dict()) for part in first]
    wanted, second = step(*first).clone(), pair()
    for part, file in zip(second, files):
        part.load_state_dict(torch.load(file, map_location="cpu"))
    moment = second[1].state[second[0].weight]["exp_avg"]
    _device(probe, moment.device, probe.device, "the optimizer's state after load_state_dict")
    probe.expect(torch.allclose(step(*second), wanted), "the step after loading differs from the step without")


@check
def copies_are_separate(probe):
    "copy.deepcopy and pickle make tensors and modules on the same device whose memory is their own."
    x = torch.ones(3, device=probe.device)
    module = torch.nn.Linear(2, 2).to(probe.device)
    for how, duplicate in (("copy.deepcopy", copy.deepcopy), ("pickle", lambda value: pickle.loads(pickle.dumps(value)))):
        y, other = duplicate(x), duplicate(module)
        _device(probe, y.device, probe.device, f"the tensor of {how}")
        _device(probe, other.weight.device, probe.device, f"the module of {how}")
        y.add_(1)
        probe.expect(y.cpu().tolist() == [2, 2, 2] and x.cpu().tolist() == [1, 1, 1], f"the tensor of {how} shares memory with its original")
