"""Copies: every pair of places, layouts and dtypes, with broadcasting, and when the values are taken.

Values are compared with the CPU's. Needs the built extension.
"""

import threading

import pytest
import torch
from parity import check, check_gradients, counted, ways

import torch_openreg  # noqa: F401  (registers the device)

DTYPES = [
    torch.float32, torch.float64, torch.float16, torch.bfloat16, torch.complex64, torch.complex128,
    torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8, torch.bool,
]
LAYOUTS = {
    "contiguous": lambda t: t,
    "transposed": lambda t: t.t().contiguous().t(),
    "strided": lambda t: torch.stack([t, t], -1)[..., 0],
    "offset": lambda t: torch.cat([t[:1], t])[1:],
    "reversed rows": lambda t: t.flip(0),
    "expanded": lambda t: t[:1].expand_as(t),
}
PLACES = ["cpu", "openreg:0", "openreg:1"]
ROUTES = [(a, b) for a in PLACES for b in PLACES if (a, b) != ("cpu", "cpu")]


def in_layout(tensor, layout, place):
    """The tensor on a place, laid out there."""
    return LAYOUTS[layout](tensor.to(place))


@pytest.mark.parametrize("source, target", ROUTES)
@pytest.mark.parametrize("source_layout", LAYOUTS)
@pytest.mark.parametrize("target_layout", ["contiguous", "transposed", "strided", "offset"])
def test_every_layout_copies_between_every_two_places(source, target, source_layout, target_layout):
    values = torch.randn(5, 7)
    for source_dtype, target_dtype in ((torch.float32, torch.float32), (torch.float32, torch.int64), (torch.float64, torch.float16)):
        want = in_layout(torch.zeros(5, 7, dtype=target_dtype), target_layout, "cpu").copy_(in_layout(values.to(source_dtype), source_layout, "cpu"))
        got = in_layout(torch.zeros(5, 7, dtype=target_dtype), target_layout, target)
        returned = got.copy_(in_layout(values.to(source_dtype), source_layout, source))
        assert returned is got and torch.equal(got.cpu(), want)


@pytest.mark.parametrize("source, target", ROUTES)
@pytest.mark.parametrize("source_dtype", DTYPES, ids=str)
def test_every_dtype_converts_on_the_way(source, target, source_dtype):
    values = torch.tensor([0, 1, 2, 3, 100, 5]).to(source_dtype)
    for target_dtype in DTYPES:
        if source_dtype.is_complex and not target_dtype.is_complex:
            continue
        want = torch.zeros(6, dtype=target_dtype).copy_(values)
        got = torch.zeros(6, dtype=target_dtype, device=target).copy_(values.to(source))
        assert torch.equal(got.cpu(), want), target_dtype
        assert torch.equal(values.to(source).to(target, target_dtype).cpu(), values.to(target_dtype))


@pytest.mark.parametrize("source, target", ROUTES)
def test_a_smaller_source_is_broadcast(source, target):
    for shape in ((), (1,), (4,), (3, 1), (1, 4), (2, 1, 4)):
        values = torch.randn(shape)
        want = torch.zeros(2, 3, 4).copy_(values)
        assert torch.equal(torch.zeros(2, 3, 4, device=target).copy_(values.to(source)).cpu(), want)
    with pytest.raises(RuntimeError, match="must match|broadcast|size of tensor"):
        torch.zeros(3, device=target).copy_(torch.zeros(4, device=source))
    with pytest.raises(RuntimeError, match="broadcast"):
        torch.zeros(3, device=target).copy_(torch.zeros(2, 3, device=source))


def test_a_larger_source_is_an_error_of_the_cpu(device):
    for shape in ((2, 3), (0, 3)):
        check(lambda x, y: x.copy_(y), torch.zeros(3), torch.ones(shape), device=device)


@pytest.mark.parametrize("source, target", ROUTES)
@pytest.mark.parametrize("size", [0, 1, 1000, 5000, 1 << 18, (1 << 20) + 3])
def test_every_size_arrives_whole(source, target, size):
    values = torch.arange(size, dtype=torch.float32)
    assert torch.equal(values.to(source).to(target).cpu(), values)


@pytest.mark.parametrize("size", [4, 5000, 1 << 20])
@pytest.mark.parametrize("non_blocking", [False, True])
def test_a_pageable_source_may_change_once_the_call_returned(size, non_blocking, device):
    source = torch.ones(size)
    target = torch.empty(size, device=device)
    target.copy_(source, non_blocking=non_blocking)
    source.fill_(-1)
    assert target.sum().item() == size
    there = source.fill_(1).to(device, non_blocking=non_blocking)
    source.fill_(-1)
    del source
    assert there.sum().item() == size


@pytest.mark.parametrize("size", [4, 5000, 1 << 20])
def test_a_strided_pageable_source_may_change_too(size, device):
    source = torch.ones(size, 2)
    target = torch.empty(size, device=device)
    target.copy_(source[:, 0], non_blocking=True)
    there = source[:, 1].to(device, torch.float64, non_blocking=True)
    source.fill_(-1)
    assert target.sum().item() == size and there.sum().item() == size


@pytest.mark.parametrize("size", [4, 5000, 1 << 20])
def test_pageable_results_are_there_when_the_call_returns(size, device):
    x = torch.ones(size, device=device).add_(1)
    target = torch.zeros(size)
    target.copy_(x)
    assert target[-1] == 2 and target.sum() == 2 * size
    target = torch.zeros(size)
    target.copy_(x, non_blocking=True)  # pageable: the copy cannot run later
    torch.openreg.synchronize(device)
    assert target.sum() == 2 * size


def test_copies_between_devices_come_after_the_work_on_both(device):
    other = torch.device("openreg", 1 - device.index)
    for _ in range(20):
        x = torch.zeros(1 << 14, device=device)
        y = torch.zeros(1 << 14, device=other)
        x.add_(1).mul_(3)
        y.add_(7)
        y.copy_(x)
        x.fill_(0)  # after the copy has read it
        y.mul_(2)
        assert y.sum().item() == 6 * (1 << 14) and x.sum().item() == 0


def test_copies_between_devices_on_side_streams(device):
    other = torch.device("openreg", 1 - device.index)
    stream = torch.openreg.Stream(device)
    x = torch.ones(1000, device=device)
    stream.wait_stream(torch.openreg.current_stream(device))
    with torch.openreg.stream(stream):
        x.mul_(2)
        y = x.to(other, non_blocking=True)
    torch.openreg.current_stream(other).wait_stream(stream)
    assert y.device == other and y.sum().item() == 2000
    stream.synchronize()


def test_assignments_from_the_host_and_from_another_device(device):
    x = torch.zeros(4, 4, device=device)
    x[1] = torch.arange(4.0)
    x[:, 2] = 9
    x[0, :2] = torch.ones(2, device=torch.device("openreg", 1 - device.index))
    x[x == 0] = -1
    want = torch.zeros(4, 4)
    want[1] = torch.arange(4.0)
    want[:, 2] = 9
    want[0, :2] = torch.ones(2)
    want[want == 0] = -1
    assert torch.equal(x.cpu(), want)


def test_to_returns_the_tensor_itself_when_nothing_changes(device):
    x = torch.ones(3, device=device)
    assert x.to(device) is x and x.to(torch.float32) is x and x.contiguous() is x
    assert x.to(device, copy=True) is not x and x.to(device, copy=True).data_ptr() != x.data_ptr()
    assert x.openreg(device.index) is x and torch.ones(2).openreg(device).device == device
    assert x.cpu().device.type == "cpu" and x.double().device == device


def test_to_and_clone_keep_the_memory_format(device):
    x = torch.randn(2, 3, 4, 5).to(memory_format=torch.channels_last)
    assert x.to(device).is_contiguous(memory_format=torch.channels_last)
    for function in (
        lambda x: x.clone(),
        lambda x: x.to(torch.float16),
        lambda x: x.contiguous(),
        lambda x: torch.empty_like(x).copy_(x),
        lambda x: x.to(memory_format=torch.contiguous_format, dtype=torch.float64),
        lambda x: x.permute(1, 0, 2, 3).clone(),
        lambda x: x[:, :2].clone(),
        lambda x: x.expand(2, 3, 4, 5).clone(memory_format=torch.preserve_format),
    ):
        check(function, x, device=device)


def test_a_copy_onto_itself_changes_nothing(device):
    x = torch.arange(4.0, device=device)
    x.copy_(x)
    x.copy_(x.view(4))
    x.view(2, 2).copy_(x.view(2, 2))
    assert x.tolist() == [0, 1, 2, 3]


def test_a_copy_of_the_same_elements_is_allowed_where_they_overlap(device):
    check(lambda x: x.expand(3, 4)[1:].copy_(x.expand(3, 4)[:-1]), torch.arange(4.0), device=device)
    check(lambda x: x.expand(3, 4).copy_(x.expand(3, 4)._neg_view()), torch.arange(4.0), device=device)


def test_errors_of_copies_are_those_of_the_cpu(device):
    for _ in range(2):
        check(lambda x: x.copy_(x.t()), torch.ones(2, 3), device=device)  # the overlap before the shapes
        check(lambda x: x[1:].copy_(x[:-1]), torch.ones(5), device=device)
        check(lambda x: x.expand(3, 4).copy_(x.new_ones(5)), torch.ones(4), device=device)
        check(lambda x: torch._efficientzerotensor((3,), device=x.device).copy_(x), torch.ones(3), device=device)
        for dtype in (torch.bool, torch.uint16, torch.float8_e5m2):
            check(lambda x: torch.empty(3, dtype=dtype, device=x.device).copy_(x._neg_view()), torch.ones(3), device=device)


def test_the_stride_of_no_elements_is_kept(device):
    for function in (torch.clone, torch.empty_like, lambda x: torch.empty_strided((0,), (5,), device=x.device)):
        check(lambda x: (function(x), function(x).stride()), torch.empty_strided((0,), (2,)), device=device)


def test_gradients_pass_copies(device):
    x = torch.randn(3, 4, requires_grad=True)
    check_gradients(lambda x: torch.zeros(3, 4, device=x.device).copy_(x) * 2, x, device=device)
    check_gradients(lambda x: torch.zeros(2, 3, 4, device=x.device, dtype=torch.float64).copy_(x), x, device=device)
    y = torch.zeros(3, 4, device=device, requires_grad=True)
    (y.cpu() * 3).sum().backward()
    assert y.grad.device == device and y.grad.eq(3).all()


def test_quantities_that_travel_with_the_launch_are_snapshots(device):
    scalar, index = torch.tensor(2.0), torch.tensor([0, 2])
    x = torch.arange(4.0, device=device)
    results = [x * scalar, x[index]]
    scalar.fill_(100)
    index.fill_(3)
    assert results[0].tolist() == [0, 2, 4, 6] and results[1].tolist() == [0, 2]


def test_which_copies_wait(device):
    x = torch.ones(100, device=device)
    pageable, pinned = torch.ones(100), torch.ones(100).pin_memory()
    large = torch.ones(1 << 16)
    y = torch.empty(1 << 16, device=device)
    torch.openreg.synchronize(device)
    with counted():
        x.copy_(pageable)
        assert ways("aten::copy_") == {"native": 1}
        x.copy_(pinned, non_blocking=True)
        assert ways("aten::copy_") == {"native": 2}
        pinned.copy_(x, non_blocking=True)
        assert ways("aten::copy_") == {"native": 3}
        x.clone()
        assert "waited" not in ways("aten::copy_")
        y.copy_(large)
        assert ways("aten::copy_")["waited"] == 1
        x.cpu()
        assert ways("aten::copy_")["waited"] == 2
        x.sum().item()
        assert ways("aten::_local_scalar_dense") == {"native": 1, "waited": 1}
    torch.openreg.synchronize(device)


def test_several_threads_copy_at_once(device):
    failures = []

    def work(seed):
        values = torch.full((3000,), float(seed))
        for _ in range(30):
            if not torch.equal((values.to(device) + 1).cpu(), values + 1):
                failures.append(seed)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures


# ---- Stream order, row by row of what cuda documents ------------------------
#
# Nothing runs unasked in these blocks, so what is in host memory shows which work has run.

DELAYED = ["lazy", "random:1", "random:2"]
SEES_TOO_EARLY = pytest.mark.findings("races", reason="the program looks before it has waited, to see that nothing has run")
LAZY_SEES_TOO_EARLY = [pytest.param("lazy", marks=SEES_TOO_EARLY), *DELAYED[1:]]


@pytest.fixture
def numbers(device):
    """(tensor, result) on the device, after a first call of each kind that the tests make, because that one waits."""
    x, y = torch.zeros(1 << 14, device=device), torch.zeros(1 << 14, device=device)
    x.fill_(0)
    y.copy_(x + 0)
    torch.openreg.synchronize(device)
    return x, y


@SEES_TOO_EARLY
@pytest.mark.parametrize("schedule", DELAYED)
def test_from_the_device_to_pinned_memory_in_stream_order(schedule, numbers, device):
    x, pinned = numbers[0], torch.zeros(1 << 14).pin_memory()
    with torch.openreg.schedule(schedule):
        x.fill_(1)
        pinned.copy_(x, non_blocking=True)
        x.fill_(2)
        assert pinned.eq(0).all()
        torch.openreg.current_stream(device).synchronize()
        assert pinned.eq(1).all()
        pinned.copy_(x)  # waits
        assert pinned.eq(2).all()


@SEES_TOO_EARLY
@pytest.mark.parametrize("schedule", DELAYED)
def test_from_pinned_memory_to_the_device_in_stream_order(schedule, numbers, device):
    (x, y), pinned = numbers, torch.ones(1 << 14).pin_memory()
    with torch.openreg.schedule(schedule):
        x.fill_(5)
        x.copy_(pinned, non_blocking=True)
        y.copy_(x)
        x.fill_(7)
        pinned.fill_(3)  # too early: the copy has not read it
        torch.openreg.current_stream(device).synchronize()
        assert y.eq(3).all() and x.eq(7).all()
        x.copy_(pinned)  # waits
        pinned.fill_(4)
        assert x.eq(3).all()


@pytest.mark.parametrize("size", [8, 1 << 14])
@pytest.mark.parametrize("non_blocking", [False, True])
@pytest.mark.parametrize("schedule", DELAYED)
def test_pageable_memory_is_free_when_the_call_returns(schedule, non_blocking, size, numbers):
    x, y = (tensor[:size] for tensor in numbers)
    source, target = torch.ones(size), torch.zeros(size)
    with torch.openreg.schedule(schedule):
        x.fill_(5)
        x.copy_(source, non_blocking=non_blocking)
        source.fill_(3)
        y.copy_(x)
        x.fill_(7)
        target.copy_(y, non_blocking=non_blocking)
        assert target.eq(1).all() and x.eq(7).all()


@pytest.mark.parametrize("schedule", LAZY_SEES_TOO_EARLY)
def test_within_a_device_in_the_order_of_the_stream_and_of_no_other(schedule, numbers, device):
    (x, y), side, pinned = numbers, torch.openreg.Stream(device), torch.zeros(1 << 14).pin_memory()
    with torch.openreg.schedule(schedule):
        x.fill_(1)
        y.copy_(x)
        x.fill_(2)
        if schedule == "lazy":
            with torch.openreg.stream(side):
                pinned.copy_(y, non_blocking=True)
                side.synchronize()
            assert pinned.eq(0).all()  # side does not wait for the current stream
        side.wait_stream(torch.openreg.current_stream(device))
        with torch.openreg.stream(side):
            pinned.copy_(y, non_blocking=True)
        side.synchronize()
        assert pinned.eq(1).all()


@SEES_TOO_EARLY
@pytest.mark.parametrize("schedule", DELAYED)
def test_between_devices_in_the_order_of_both_current_streams_and_of_no_other(schedule, numbers, device):
    x, other = numbers[0], torch.device("openreg", 1 - device.index)
    y, ones = torch.zeros(1 << 14, device=other), torch.ones(1 << 14, device=other)
    y.fill_(0)
    here, there = torch.openreg.Stream(device), torch.openreg.Stream(other)
    elsewhere, result = (torch.zeros(1 << 14).pin_memory() for _ in range(2))
    with torch.openreg.schedule(schedule), torch.openreg.stream(here), torch.openreg.stream(there):
        x.fill_(1)  # on `here`
        y.fill_(9)  # on `there`
        y.copy_(x, non_blocking=True)
        x.fill_(2)
        result.copy_(y, non_blocking=True)
        with torch.openreg.stream(torch.openreg.default_stream(other)):
            elsewhere.copy_(ones, non_blocking=True)
        there.synchronize()
        assert result.eq(1).all()
        if schedule == "lazy":
            assert elsewhere.eq(0).all()
        assert x.eq(2).all() and elsewhere.sum() in (0, 1 << 14)
