"""Memory (L2): sizes from nothing to too much, statistics, reuse, streams, copies."""

import re

import torch

from . import check

SIZE_OF_64_TIB = re.compile(r"\b(64(\.0+)? ?TiB|65536(\.0+)? ?GiB|70368744177664)\b")
BLOCK = 8 << 20  # bytes of a tensor that no allocator takes from a pool of small blocks


def block(probe, device=None) -> torch.Tensor:
    return torch.empty(BLOCK, dtype=torch.uint8, device=device or probe.device)


def allocated(device) -> int:
    return torch.accelerator.memory_allocated(device)


@check
def a_tensor_may_have_no_elements(probe):
    "Tensors without elements can be made, computed with and copied."
    for size in ((0,), (3, 0), (0, 5, 2)):
        try:
            tensor = torch.empty(size, device=probe.device)
            shape = tuple((tensor + 1).to("cpu", torch.float64).shape) if probe.type != "meta" else tuple((tensor + 1).shape)
        except NotImplementedError:
            raise
        except Exception as error:
            probe.expect(False, f"a tensor of shape {size} raises {type(error).__name__}: {str(error).splitlines()[0]}")
        probe.expect(shape == size, f"a tensor of shape {size}, plus one and back, has shape {shape}")


@check
def live_tensors_share_no_memory(probe):
    "Every tensor has memory of its own, from its first to its last element."
    probe.needs(probe.type != "meta", "meta tensors have no values")
    tensors = [torch.empty(size, device=probe.device) for size in (1, 100, 129, 1000, 5000, 1 << 20) for _ in range(4)]
    for number, tensor in enumerate(tensors):
        tensor.fill_(number)
    for number, tensor in enumerate(tensors):
        ends = [tensor[0].item(), tensor[-1].item()]
        probe.expect(ends == [number, number], f"a tensor of {tensor.numel()} elements, filled with {number}, reads {ends} after others were filled")


@check
def memory_is_aligned(probe):
    "A tensor's memory begins at a multiple of 64 bytes, as vector instructions need it."
    probe.needs_accelerator()
    for size in (1, 3, 17, 1000):
        address = torch.empty(size, dtype=torch.uint8, device=probe.device).data_ptr()
        probe.expect(address % 64 == 0, f"a tensor of {size} bytes begins at address {address:#x}, which is not a multiple of 64")


@check
def too_much_memory_raises_out_of_memory(probe):
    "More memory than there is raises torch.OutOfMemoryError, changes nothing, and the device works afterwards."
    probe.needs_accelerator()
    said = "64 TiB on the device raise no torch.OutOfMemoryError"
    probe.expect_raises(lambda: torch.empty(64 << 40, dtype=torch.uint8, device=probe.device), said, (torch.OutOfMemoryError,))
    probe.expect(torch.ones(3, device=probe.device).sum().item() == 3, "after a failed allocation the device does not work")


@check
def out_of_memory_says_how_much(probe):
    "The error of too much memory says how much was asked for."
    probe.needs_accelerator()
    said = "64 TiB on the device raise no torch.OutOfMemoryError"
    error = probe.expect_raises(lambda: torch.empty(64 << 40, dtype=torch.uint8, device=probe.device), said, (torch.OutOfMemoryError,))
    probe.expect(SIZE_OF_64_TIB.search(str(error)), f"the error of 64 TiB does not say that they were asked for: {str(error).splitlines()[0]}")


@check
def a_nonsense_size_is_refused(probe):
    "A size whose bytes do not fit into 64 bits raises an error."
    probe.needs_accelerator()
    for size in (1 << 61, 1 << 62):
        said = f"a tensor of {size} numbers raises nothing"
        probe.expect_raises(lambda size=size: torch.empty(size, dtype=torch.float64, device=probe.device), said, (RuntimeError,))


@check
def statistics_follow_tensors(probe):
    "memory_allocated() grows by at least the bytes of a new tensor, and shrinks when it is gone."
    probe.needs_memory_statistics()
    before = allocated(probe.device)
    tensor = block(probe)
    during = allocated(probe.device)
    del tensor
    after = allocated(probe.device)
    probe.expect(during - before >= BLOCK, f"memory_allocated() grew by {during - before} bytes with a tensor of {BLOCK} bytes")
    probe.expect(after == before, f"memory_allocated() is {after} after a tensor came and went, it was {before}")


@check
def the_peak_is_remembered_until_it_is_reset(probe):
    "max_memory_allocated() keeps the most that was allocated, and reset_peak_memory_stats() makes it what is allocated now."
    probe.needs_memory_statistics()
    tensor = block(probe)
    top = allocated(probe.device)
    del tensor
    peak = torch.accelerator.max_memory_allocated(probe.device)
    probe.expect(peak >= top, f"max_memory_allocated() is {peak}, and {top} bytes were allocated")
    torch.accelerator.reset_peak_memory_stats(probe.device)
    peak, now = torch.accelerator.max_memory_allocated(probe.device), allocated(probe.device)
    probe.expect(peak == now, f"after reset_peak_memory_stats() max_memory_allocated() is {peak}, and {now} bytes are allocated")


@check
def freed_memory_is_used_again(probe):
    "Tensors of one size that come and go do not need more and more memory."
    probe.needs_memory_statistics()
    block(probe)
    first = torch.accelerator.memory_reserved(probe.device)
    for _ in range(50):
        block(probe)
    last = torch.accelerator.memory_reserved(probe.device)
    probe.expect(last <= first + BLOCK, f"after 50 tensors that came and went, one at a time, memory_reserved() is {last}, it was {first}")
    probe.expect(last >= allocated(probe.device), f"memory_reserved() is {last}, less than the {allocated(probe.device)} bytes that are allocated")


@check
def empty_cache_gives_memory_back(probe):
    "empty_cache() gives back what no tensor uses: memory_reserved() falls."
    probe.needs_memory_statistics()
    tensor = torch.empty(4 * BLOCK, dtype=torch.uint8, device=probe.device)
    during = torch.accelerator.memory_reserved(probe.device)
    del tensor
    probe.synchronize()
    torch.accelerator.empty_cache()
    after = torch.accelerator.memory_reserved(probe.device)
    probe.expect(after <= during - 4 * BLOCK, f"after a tensor of {4 * BLOCK} bytes went and empty_cache(), memory_reserved() is {after}, it was {during}")


@check
def memory_info_counts_what_is_in_use(probe):
    "get_memory_info() gives free and total bytes, and a large tensor that is new to the device makes free smaller."
    probe.needs_memory_statistics()
    torch.accelerator.empty_cache()
    free, total = torch.accelerator.get_memory_info(probe.device)
    probe.expect(0 < free <= total, f"get_memory_info() says that {free} of {total} bytes are free")
    size = min(free // 4, 64 << 20)
    tensor = torch.empty(size, dtype=torch.uint8, device=probe.device)
    now, _ = torch.accelerator.get_memory_info(probe.device)
    del tensor
    torch.accelerator.empty_cache()
    probe.expect(free - now >= size // 2, f"with a new tensor of {size} bytes, the free memory went from {free} to {now}")


@check
def statistics_belong_to_their_device(probe):
    "A tensor counts for its own device only."
    other = probe.needs_two_devices()
    probe.needs_memory_statistics()
    before = allocated(other)
    tensor = block(probe)
    found = allocated(other)
    del tensor
    probe.expect(found == before, f"with a tensor on {probe.device}, memory_allocated() of {other} went from {before} to {found}")


@check
def record_stream_defers_reuse(probe):
    "Memory of a tensor that record_stream() gave to another stream is not used again before that stream has passed the point."
    side = probe.stream()
    value, steps = probe.busy()
    data = torch.ones(1 << 18, device=probe.device)
    found = torch.zeros_like(data)
    probe.synchronize()
    with side:
        probe.work(value, steps)
        found.copy_(data)
    data.record_stream(side)
    del data
    others = [torch.full((1 << 18,), 5.0, device=probe.device) for _ in range(4)]
    probe.synchronize()
    wrong = found[found != 1]
    said = f"a side stream read {wrong[:1].tolist()} in a tensor of ones after record_stream(): its memory went to another tensor too early"
    probe.expect(wrong.numel() == 0, said)
    del others


@check
def a_copy_to_the_host_waits(probe):
    "cpu() and item() give values that are finished, however much work is queued before them."
    probe.needs(probe.type != "meta", "meta tensors have no values")
    value, steps = probe.busy()
    probe.work(value, steps)
    found = value[-1:].cpu().item()
    probe.expect(found == steps, f"cpu() behind {steps} additions of 1 gave {found:.0f}")
    probe.work(value, steps)
    found = value[-1].item()
    probe.expect(found == 2 * steps, f"item() behind {2 * steps} additions of 1 gave {found:.0f}")


@check
def a_copy_from_ordinary_memory_has_read_it(probe):
    "copy_(non_blocking=True) from memory that is not pinned has read it when the call returns, as with cuda: the caller may write to it again."
    probe.needs_accelerator()
    value, steps = probe.busy()
    source, there = torch.ones(100000), torch.zeros(100000, device=probe.device)
    probe.work(value, steps)
    there.copy_(source, non_blocking=True)
    source.fill_(5)
    probe.synchronize()
    found = there.cpu()
    probe.expect(bool((found == 1).all()), f"a copy of ones, whose source was filled with 5 after the call, has {found[found != 1][:1].tolist()}")


@check
def a_copy_that_does_not_block_arrives(probe):
    "copy_(non_blocking=True) between pinned memory and the device has arrived when its stream has been waited for, both ways."
    probe.needs_accelerator()
    source = torch.arange(100000.0).pin_memory()
    there = torch.zeros(100000, device=probe.device)
    back = torch.zeros(100000).pin_memory()
    there.copy_(source, non_blocking=True)
    back.copy_(there, non_blocking=True)
    probe.synchronize()
    said = f"non-blocking copies to the device and back give {back[:3].tolist()}... after synchronize(), expected {source[:3].tolist()}..."
    probe.expect(torch.equal(back, source), said)
