"""Storages: freed and brought back, copied on write, wrapped around foreign pointers, watched by weak references; and modules that move
while an optimizer holds their parameters.

Needs the built extension.
"""

import copy
import gc
import weakref

import pytest
import torch

import torch_openreg  # noqa: F401  (registers the device)


def used(device):
    return torch.openreg.memory_allocated(device)


def test_a_storage_of_no_bytes_gives_its_memory_back_and_a_tensor_over_it_lives_on(device):
    """The way in which FSDP frees a parameter between its uses."""
    before = used(device)
    x = torch.arange(1 << 18, dtype=torch.float32, device=device)
    view, storage = x[4:], x.untyped_storage()
    storage.resize_(0)
    assert used(device) == before and storage.nbytes() == 0 and storage.data_ptr() == 0
    assert x.shape == (1 << 18,) and x.device == device
    storage.resize_(1 << 20)
    x.copy_(torch.arange(1 << 18))
    assert view[0].item() == 4 and x.sum().item() == (torch.arange(1 << 18).float().sum()).item()


def test_a_storage_that_shrinks_while_work_is_queued_loses_nothing(python):
    python(
        """
        import torch, torch_openreg
        for index in (1, 0):
            x = torch.ones(1 << 12, device=f"openreg:{index}")
            y = x * 3
            x.untyped_storage().resize_(0)
            z = torch.full((1 << 12,), 7.0, device=x.device)
            assert y.sum().item() == 3 << 12 and z.sum().item() == 7 << 12
        """,
        env={"OPENREG_SCHEDULE": "lazy"},
    )


def test_use_of_a_freed_storage_is_an_error_and_not_a_fault(python):
    python(
        """
        import torch, torch_openreg
        x = torch.ones(4, device="openreg:1")
        tail, one = x[1:], x[0]
        x.untyped_storage().resize_(0)
        uses = [lambda: x + 1, lambda: x.cpu(), lambda: x.fill_(1), lambda: x.copy_(torch.ones(4)), lambda: x.zero_(), lambda: tail.sum(),
                lambda: torch.mul(x, 2, out=x), lambda: torch.stack([x, x]), lambda: torch._foreach_add_([x], 1), lambda: one.item(),
                lambda: x.double(), lambda: x.to("openreg:0"), lambda: x.normal_(), lambda: x.tolist(), lambda: torch.matmul(x, x)]
        for use in uses:
            try:
                use()
            except RuntimeError as error:
                assert "has no memory: its storage was resized to 0 bytes" in str(error), error
            else:
                raise AssertionError
        assert torch.ones(2, device="openreg:1").sum().item() == 2
        """
    )


def test_set_takes_another_storage_and_leaves_the_first_to_its_other_owner(device):
    x, y = torch.zeros(4, device=device), torch.arange(8.0, device=device)
    alias = x.view(2, 2)
    x.set_(y.untyped_storage(), 2, (3,), (2,))
    assert x.tolist() == [2, 4, 6] and alias.tolist() == [[0, 0], [0, 0]]
    x.add_(10)
    assert y.tolist() == [0, 1, 12, 3, 14, 5, 16, 7]
    other = torch.zeros(4, device=torch.device("openreg", 1 - device.index))
    with pytest.raises(RuntimeError, match="device"):
        x.set_(other.untyped_storage(), 0, (4,), (1,))


def test_data_swaps_values_under_a_parameter_that_autograd_knows(device):
    p = torch.nn.Parameter(torch.ones(3, device=device))
    p.data = torch.full((3,), 4.0, device=device)
    (p * p).sum().backward()
    assert p.grad.tolist() == [8, 8, 8]
    first, second = torch.zeros(2, device=device), torch.ones(3, device=device)
    torch.utils.swap_tensors(first, second)
    assert first.tolist() == [1, 1, 1] and second.tolist() == [0, 0]


def test_share_memory_is_what_it_is_on_every_accelerator(device):
    x = torch.ones(3, device=device)
    assert x.share_memory_() is x and x.is_shared() and x.untyped_storage().is_shared()
    storage = torch.UntypedStorage._new_shared(16, device=device)
    assert storage.device == device and storage.nbytes() == 16


WRITES = {
    "in place": lambda t: t.add_(1),
    "fill": lambda t: t.fill_(3),
    "copy": lambda t: t.copy_(torch.zeros(6)),
    "out=": lambda t: torch.mul(t, 5, out=t),
    "view": lambda t: t.view(2, 3)[1].zero_(),
    "index": lambda t: t.index_fill_(0, torch.tensor([1], device=t.device), 9),
    "foreach": lambda t: torch._foreach_add_([t], 2.0),
    "random": lambda t: t.normal_(),
    "sort": lambda t: torch.sort(-t, out=(t, torch.empty(0, dtype=torch.long, device=t.device))),
    "storage": lambda t: t.untyped_storage().fill_(1),
    "resize": lambda t: t.resize_(100).fill_(0),
}


@pytest.mark.parametrize("write", WRITES)
@pytest.mark.parametrize("which", ["clone", "source"])
def test_a_lazy_clone_is_copied_by_the_first_write_to_its_own_device(write, which, device):
    source = torch.arange(6.0, device=device)
    before = used(device)
    clone = torch._lazy_clone(source)
    assert used(device) == before and torch._C._is_cow_tensor(clone) and torch._C._is_cow_tensor(source)
    written, kept = (clone, source) if which == "clone" else (source, clone)
    WRITES[write](written)
    assert kept.tolist() == [0, 1, 2, 3, 4, 5]
    assert written.tolist() != kept.tolist()
    assert {written.device, written.untyped_storage().device, kept.untyped_storage().device} == {device}
    if write != "resize":
        assert not torch._C._is_cow_tensor(written)


def test_reading_a_lazy_clone_copies_nothing(device):
    source = torch.arange(6.0, device=device)
    clone = torch._lazy_clone(source)
    assert (clone + 1).sum().item() == 21 and clone.cpu().tolist() == source.tolist()
    assert torch.equal(clone, source) and clone.view(2, 3).t().contiguous().shape == (3, 2)
    assert torch._C._is_cow_tensor(clone) and torch._C._is_cow_tensor(source)


def test_a_lazy_clone_of_a_storage_made_by_hand_is_copied_to_its_device(device):
    source = torch.empty(0, device=device).set_(torch.UntypedStorage(24, device=device)).fill_(2)
    clone = torch._lazy_clone(source)
    clone.add_(1)
    assert clone.untyped_storage().device == device and clone.sum().item() == 18 and source.sum().item() == 12


def test_a_pointer_becomes_a_storage_that_does_not_own_it(device):
    owner = torch.arange(6.0, device=device)
    before = used(device)
    storage = torch._C._construct_storage_from_data_pointer(owner.data_ptr() + 8, device, 16)
    assert storage.device == device and storage.nbytes() == 16 and not storage.resizable()
    alias = torch.empty(0, device=device).set_(storage)
    alias.mul_(10)
    assert owner.tolist() == [0, 1, 20, 30, 40, 50]
    with pytest.raises(RuntimeError, match="not resizable"):
        storage.resize_(100)
    del alias, storage
    assert used(device) == before and owner.sum().item() == 141


def test_a_storage_made_by_size_or_values(device):
    storage = torch.UntypedStorage(5, device=device)
    assert storage.nbytes() == 5 and storage.device == device and len(storage) == 5
    storage.fill_(7)
    assert storage.tolist() == [7] * 5 and storage[2] == 7
    storage[1] = 3
    assert storage.tolist() == [7, 3, 7, 7, 7]
    assert torch.UntypedStorage([1, 2, 3], device=device).tolist() == [1, 2, 3]
    assert torch.UntypedStorage(0, device=device).nbytes() == 0
    assert storage.openreg(1 - device.index).device.index == 1 - device.index


def test_copies_of_tensors_and_storages(device):
    x = torch.arange(4.0, device=device)
    assert copy.copy(x) is not x and copy.copy(x).data_ptr() == x.data_ptr()
    deep = copy.deepcopy(x.untyped_storage())
    assert deep.device == device and deep.data_ptr() != x.data_ptr() and deep.tolist() == x.untyped_storage().tolist()
    base, view, twin = copy.deepcopy((x, x[1:], x.untyped_storage()))
    view.zero_()
    assert base.tolist() == [0, 0, 0, 0] and twin.tolist() == [0] * 16 and x.sum().item() == 6


def test_weak_references_and_finalisers_run_when_the_memory_goes(device):
    before, events = used(device), []
    x = torch.ones(1 << 12, device=device)
    weak = weakref.ref(x)
    weakref.finalize(x, lambda: events.append("tensor"))
    weakref.finalize(x.untyped_storage(), lambda: events.append("storage"))
    alias = x.detach()
    del x
    gc.collect()
    assert weak() is None and events == ["tensor"] and used(device) > before
    del alias
    gc.collect()
    assert used(device) == before and events == ["tensor", "storage"]


@pytest.fixture
def swapping():
    torch.__future__.set_swap_module_params_on_conversion(True)
    yield
    torch.__future__.set_swap_module_params_on_conversion(False)


def train(model, optimizer, device):
    for _ in range(3):
        optimizer.zero_grad()
        model(torch.arange(6.0).reshape(3, 2).to(device)).square().mean().backward()
        optimizer.step()


def test_an_optimizer_that_was_built_before_the_move_works_with_the_switch(swapping, device):
    torch.manual_seed(0)
    reference = torch.nn.Sequential(torch.nn.Linear(2, 4), torch.nn.Tanh(), torch.nn.Linear(4, 1))
    model = copy.deepcopy(reference)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1)
    parameters = list(model.parameters())
    model.to(device)
    assert all(a is b for a, b in zip(parameters, model.parameters())) and {p.device for p in parameters} == {device}
    train(model, optimizer, device)
    train(reference, torch.optim.AdamW(reference.parameters(), lr=0.1), "cpu")
    for got, expected in zip(model.parameters(), reference.parameters()):
        torch.testing.assert_close(got.detach().cpu(), expected.detach())


def test_without_the_switch_the_module_gets_new_parameters_and_the_optimizer_keeps_the_old(device):
    """What docs/sharing.md warns of. When this fails, core lets out-of-tree devices keep their parameters, and the page must say so."""
    model = torch.nn.Linear(2, 1)
    parameters = list(model.parameters())
    model.to(device)
    assert not any(a is b for a, b in zip(parameters, model.parameters())) and {p.device.type for p in parameters} == {"cpu"}


def test_a_lazy_module_is_moved_after_its_first_call(device):
    model = torch.nn.Sequential(torch.nn.LazyLinear(4), torch.nn.ReLU(), torch.nn.LazyLinear(1))
    model(torch.ones(3, 2))
    model.to(device)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    before = model[2].weight.detach().clone()
    train(model, optimizer, device)
    assert {p.device for p in model.parameters()} == {device} and not torch.equal(before, model[2].weight)


def test_a_lazy_module_that_moves_before_its_first_call_forgets_that_it_is_lazy(device):
    """What docs/sharing.md warns of. When this fails, core keeps lazy parameters of out-of-tree devices, and the page must say so."""
    model = torch.nn.LazyLinear(4).to(device)
    assert not isinstance(model.weight, torch.nn.UninitializedParameter)


def test_an_optimizer_built_over_a_lazy_module_works_when_the_module_is_made_on_the_device(device):
    model = torch.nn.LazyLinear(1, device=device)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    train(model, optimizer, device)
    assert optimizer.param_groups[0]["params"][0] is model.weight and model.weight.device == device
