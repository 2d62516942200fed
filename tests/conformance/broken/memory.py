"""Wrong memory: sizes that break, statistics that stand still, blocks that two tensors share, copies that come too late."""

import contextlib

import torch

from . import variant
from .device import contiguous
from .replacement import replaced


@variant({"check.memory.a_tensor_may_have_no_elements": "a tensor of shape (0,) raises RuntimeError"})
def nothing_cannot_be_allocated():
    "A tensor without elements raises."

    def empty(size, *, dtype=None, layout=None, device=None, pin_memory=None, memory_format=None):
        if 0 in size:
            raise RuntimeError("cannot allocate 0 bytes")
        return torch.empty_strided(size, contiguous(size), dtype=dtype, device=device)

    return replaced("empty.memory_format", empty)


@variant({"check.memory.live_tensors_share_no_memory": "after others were filled"})
def blocks_are_given_twice():
    "The allocator rounds sizes down, so that the end of one tensor is the beginning of the next."
    heap = torch.empty(1 << 24, device="openreg")
    used = [0]

    def empty(size, *, device=None):
        start = used[0]
        used[0] += max(1, size - size // 32)
        return heap[start : start + size]

    torch.empty = empty


@variant({"check.memory.memory_is_aligned": "which is not a multiple of 64"})
def memory_begins_anywhere():
    "Memory begins behind a header of 8 bytes."
    make = torch.empty
    torch.empty = lambda size, *, dtype, device: make(size + 8, dtype=dtype, device=device)[8:]


@variant({"check.memory.too_much_memory_raises_out_of_memory": "64 TiB on the device raise no torch.OutOfMemoryError: raised RuntimeError"})
def out_of_memory_is_any_error():
    "Running out of memory raises a plain RuntimeError."
    make = torch.empty

    def empty(*args, **kwargs):
        try:
            return make(*args, **kwargs)
        except torch.OutOfMemoryError as error:
            raise RuntimeError(str(error)) from None

    torch.empty = empty


@variant({"check.memory.out_of_memory_says_how_much": "the error of 64 TiB does not say that they were asked for: out of memory"})
def out_of_memory_says_nothing():
    "Running out of memory is an error without a number."
    make = torch.empty

    def empty(*args, **kwargs):
        try:
            return make(*args, **kwargs)
        except torch.OutOfMemoryError:
            raise torch.OutOfMemoryError("out of memory") from None

    torch.empty = empty


@variant({"check.memory.a_nonsense_size_is_refused": "numbers raises nothing"})
def sizes_overflow():
    "The bytes of a tensor are counted in 64 bits, whatever comes out."
    make = torch.empty
    torch.empty = lambda size, *, dtype, device: make(size * 8 % 2**64 // 8 % 2**20, dtype=dtype, device=device)


@variant({"check.memory.statistics_follow_tensors": "memory_allocated() grew by 0 bytes with a tensor of 8388608 bytes"})
def statistics_stand_still():
    "memory_allocated() is always 0."
    torch.accelerator.memory_allocated = lambda device=None: 0


@variant({"check.memory.the_peak_is_remembered_until_it_is_reset": "after reset_peak_memory_stats() max_memory_allocated() is"})
def peaks_are_never_reset():
    "reset_peak_memory_stats() does nothing."
    torch.accelerator.reset_peak_memory_stats = lambda device=None: None


@variant({"check.memory.freed_memory_is_used_again": "after 50 tensors that came and went, one at a time, memory_reserved() is"})
def memory_never_comes_back():
    "Memory of tensors that are gone stays in use."
    make, leaked = torch.empty, []

    def empty(*args, **kwargs):
        leaked.append(make(*args, **kwargs))
        return leaked[-1]

    torch.empty = empty


@variant({"check.memory.empty_cache_gives_memory_back": "and empty_cache(), memory_reserved() is"})
def empty_cache_ignored():
    "empty_cache() does nothing."
    torch.accelerator.empty_cache = lambda: None


@variant({"check.memory.memory_info_counts_what_is_in_use": "the free memory went from"})
def memory_is_always_free():
    "get_memory_info() says that all memory is free."
    info = torch.accelerator.get_memory_info
    torch.accelerator.get_memory_info = lambda device=None: (info(device)[1],) * 2


@variant({"check.memory.statistics_belong_to_their_device": "memory_allocated() of openreg:1 went from"})
def statistics_of_all_devices():
    "memory_allocated() counts all devices together."
    count = torch.accelerator.memory_allocated
    torch.accelerator.memory_allocated = lambda device=None: count(0) + count(1)


@variant({"check.memory.record_stream_defers_reuse": "its memory went to another tensor too early"})
def record_stream_ignored():
    "record_stream() does nothing."
    return replaced("record_stream", lambda tensor, stream: None)


@variant({"check.memory.a_copy_to_the_host_waits": "additions of 1 gave"})
def copies_to_the_host_do_not_wait():
    "cpu() of one element returns before the value has arrived. Larger copies wait, and so does what opens the device."

    def cpu(self):
        with torch.Stream(device=self.device) if self.numel() == 1 else contextlib.nullcontext():
            return self.to("cpu")

    torch.Tensor.cpu = cpu


@variant({"check.memory.a_copy_that_does_not_block_arrives": "non-blocking copies to the device and back give [0.0, 0.0, 0.0]"})
def copies_that_do_not_block_are_lost():
    "copy_(non_blocking=True) moves nothing."
    copy = torch.Tensor.copy_
    torch.Tensor.copy_ = lambda self, source, non_blocking=False: self if non_blocking else copy(self, source)


@variant({"check.memory.a_copy_from_ordinary_memory_has_read_it": "whose source was filled with 5 after the call, has [5.0]"})
def copies_read_when_they_run():
    "copy_(non_blocking=True) reads ordinary memory when the copy runs."
    copy, synchronize, queued = torch.Tensor.copy_, torch.openreg.synchronize, []

    def late(self, source, non_blocking=False):
        if non_blocking and not source.is_pinned():
            queued.append((self, source))
            return self
        return copy(self, source, non_blocking)

    def run(device=None):
        while queued:
            copy(*queued.pop(0))
        synchronize(device)

    torch.Tensor.copy_, torch.openreg.synchronize = late, run
