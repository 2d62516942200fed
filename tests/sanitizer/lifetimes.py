"""Exhibits: memory used after it was freed, reused while a stream still uses it, read before anybody wrote it, left, or kept."""

import gc

import torch

from museum import exhibit

RECORD_STREAM = "PyTorch, documentation of Tensor.record_stream"


@exhibit("lifetime", "elementwise", RECORD_STREAM)
class FreedWhileTheSideReads:
    @staticmethod
    def wrong(room):
        a = room.full(4096)
        room.side.wait_stream(room.main)
        with room.on(room.side):
            kept = a.exp()
        del a
        room.reuse(4096)
        return kept

    @staticmethod
    def right(room):
        a = room.full(4096)
        room.side.wait_stream(room.main)
        with room.on(room.side):
            kept = a.exp()
        a.record_stream(room.side)
        del a
        room.reuse(4096)
        return kept


@exhibit("lifetime", "copy to the host", RECORD_STREAM + ": a copy to pinned memory on another stream")
class FreedWhileBeingCopied:
    @staticmethod
    def wrong(room):
        a, host = room.full(4096), room.pinned(4096)
        room.side.wait_stream(room.main)
        with room.on(room.side):
            host.copy_(a, non_blocking=True)
        del a
        room.reuse(4096)
        torch.openreg.synchronize()
        return host.sum()

    @staticmethod
    def right(room):
        a, host = room.full(4096), room.pinned(4096)
        room.side.wait_stream(room.main)
        with room.on(room.side):
            host.copy_(a, non_blocking=True)
        a.record_stream(room.side)
        del a
        room.reuse(4096)
        torch.openreg.synchronize()
        return host.sum()


@exhibit("lifetime", "matmul", "PyTorch FSDP, issue reports on freeing gathered parameters: the weight belongs to the communication stream")
class GatheredWeightReused:
    @staticmethod
    def wrong(room):
        x = room.full(64, 64)
        with room.on(room.side):
            weight = torch.ones(64, 64, device=room.device)
        room.main.wait_stream(room.side)
        y = x @ weight
        del weight
        with room.on(room.side):
            torch.zeros(64, 64, device=room.device)
        return y

    @staticmethod
    def right(room):
        x = room.full(64, 64)
        with room.on(room.side):
            weight = torch.ones(64, 64, device=room.device)
        room.main.wait_stream(room.side)
        y = x @ weight
        weight.record_stream(room.main)
        del weight
        with room.on(room.side):
            torch.zeros(64, 64, device=room.device)
        return y


@exhibit("lifetime", "reduction", "NVIDIA Apex, data_prefetcher: the batch is made on the side stream and freed by the main one")
class PrefetchedBatchReused:
    @staticmethod
    def wrong(room):
        with room.on(room.side):
            batch = torch.ones(4096, device=room.device)
        room.main.wait_stream(room.side)
        total = batch.sum()
        del batch
        with room.on(room.side):
            torch.zeros(4096, device=room.device)
        return total

    @staticmethod
    def right(room):
        with room.on(room.side):
            batch = torch.ones(4096, device=room.device)
        room.main.wait_stream(room.side)
        total = batch.sum()
        batch.record_stream(room.main)
        del batch
        with room.on(room.side):
            torch.zeros(4096, device=room.device)
        return total


@exhibit("lifetime", "fill", "PyTorch, CUDACachingAllocator: memory belongs to the stream that it was allocated for")
class AllocatedHereWrittenThere:
    @staticmethod
    def wrong(room):
        old = room.full(4096)
        del old
        a = torch.empty(4096, device=room.device)
        with room.on(room.side):
            a.fill_(1)

    @staticmethod
    def right(room):
        old = room.full(4096)
        del old
        a = torch.empty(4096, device=room.device)
        room.side.wait_stream(room.main)
        with room.on(room.side):
            a.fill_(1)


@exhibit("lifetime", "raw pointer", "CuPy and Numba interoperability: a view over memory that its owner has freed")
class UsedAfterItWasFreed:
    @staticmethod
    def wrong(room):
        pointer = torch.openreg.caching_allocator_alloc(4096, 0)
        storage = torch._C._construct_storage_from_data_pointer(pointer, room.device, 4096)
        view = torch.empty(0, device=room.device).set_(storage, 0, (1024,), (1,))
        view.fill_(1)
        torch.openreg.caching_allocator_delete(pointer)
        return view[1000:].sum()

    @staticmethod
    def right(room):
        pointer = torch.openreg.caching_allocator_alloc(4096, 0)
        storage = torch._C._construct_storage_from_data_pointer(pointer, room.device, 4096)
        view = torch.empty(0, device=room.device).set_(storage, 0, (1024,), (1,))
        view.fill_(1)
        result = view[1000:].sum()
        torch.openreg.caching_allocator_delete(pointer)
        return result


@exhibit("lifetime", "allocator", "CUDA, cudaFree: freeing twice")
class FreedTwice:
    @staticmethod
    def wrong(room):
        pointer = torch.openreg.caching_allocator_alloc(4096, 0)
        torch.openreg.caching_allocator_delete(pointer)
        try:
            torch.openreg.caching_allocator_delete(pointer)
        except ValueError:
            pass

    @staticmethod
    def right(room):
        pointer = torch.openreg.caching_allocator_alloc(4096, 0)
        torch.openreg.caching_allocator_delete(pointer)


# ---- Contents -----------------------------------------------------------------

EMPTY = "PyTorch, documentation of torch.empty: the contents are undefined"


@exhibit("init", "elementwise", EMPTY, modes="init")
class AddedToNothing:
    @staticmethod
    def wrong(room):
        return torch.empty(64, device=room.device) + 1

    @staticmethod
    def right(room):
        return torch.zeros(64, device=room.device) + 1


@exhibit("init", "in-place", EMPTY + ": gradients accumulated into empty_like()", modes="init")
class AccumulatedIntoNothing:
    @staticmethod
    def wrong(room):
        part = room.full(64)
        return torch.empty_like(part).add_(part)

    @staticmethod
    def right(room):
        part = room.full(64)
        return torch.zeros_like(part).add_(part)


@exhibit("init", "matmul", "PyTorch, torch.nn: a parameter made by empty() without reset_parameters()", modes="init")
class WeightNeverInitialised:
    @staticmethod
    def wrong(room):
        weight = torch.nn.Parameter(torch.empty(8, 4, device=room.device))
        return torch.nn.functional.linear(room.full(2, 4), weight)

    @staticmethod
    def right(room):
        weight = torch.nn.Parameter(torch.empty(8, 4, device=room.device))
        torch.nn.init.uniform_(weight)
        return torch.nn.functional.linear(room.full(2, 4), weight)


@exhibit("init", "reduction", EMPTY + ": the last batch is smaller than the buffer", modes="init")
class RowsBehindTheLastBatch:
    @staticmethod
    def wrong(room):
        buffer = torch.empty(8, 4, device=room.device)
        buffer[:6].copy_(room.full(6, 4))
        return buffer.sum()

    @staticmethod
    def right(room):
        buffer = torch.empty(8, 4, device=room.device)
        buffer[:6].copy_(room.full(6, 4))
        return buffer[:6].sum()


@exhibit("init", "index_add_", EMPTY + ": rows are added up in memory of empty()", modes="init")
class AddedUpOnNothing:
    @staticmethod
    def wrong(room):
        sums = torch.empty(16, 4, device=room.device)
        sums[:8] = 0
        return sums.index_add_(0, torch.tensor([3, 9], device=room.device), room.full(2, 4))

    @staticmethod
    def right(room):
        sums = torch.empty(16, 4, device=room.device)
        sums[:8] = 0
        return sums.index_add_(0, torch.tensor([3, 7], device=room.device), room.full(2, 4))


@exhibit("init", "resize_", "PyTorch, documentation of Tensor.resize_: new elements are uninitialised", modes="init")
class GrownAndUsed:
    @staticmethod
    def wrong(room):
        a = room.full(4)
        a.resize_(2048)
        return a.mul(2)

    @staticmethod
    def right(room):
        a = room.full(4)
        a.resize_(2048)
        return a[:4].mul(2)


@exhibit("init", "item", EMPTY, modes="init")
class NothingLookedAt:
    @staticmethod
    def wrong(room):
        return torch.empty((), device=room.device).item()

    @staticmethod
    def right(room):
        return torch.zeros((), device=room.device).item()


@exhibit("init", "views", EMPTY + ": every second column was written", modes="init")
class ColumnsBetween:
    @staticmethod
    def wrong(room):
        a = torch.empty(8, 8, device=room.device)
        a[:, ::2].fill_(1)
        return a[:, 1].exp()

    @staticmethod
    def right(room):
        a = torch.empty(8, 8, device=room.device)
        a[:, ::2].fill_(1)
        return a[:, 2].exp()


@exhibit("init", "copy", EMPTY + ": copying nothing is no use of it, using the copy is", modes="init")
class CopyOfNothing:
    @staticmethod
    def wrong(room):
        return torch.empty(64, device=room.device).clone().sqrt()

    @staticmethod
    def right(room):
        return torch.empty(64, device=room.device).clone().fill_(1).sqrt()


# ---- Bounds and leaks ---------------------------------------------------------


@exhibit("bounds", "views", "PyTorch issue reports on as_strided: sizes larger than the memory behind them", modes="bounds")
class ViewPastItsMemory:
    @staticmethod
    def wrong(room):
        pointer = torch.openreg.caching_allocator_alloc(1000, 0)
        storage = torch._C._construct_storage_from_data_pointer(pointer, room.device, 4096)
        torch.empty(0, device=room.device).set_(storage, 0, (251,), (1,)).fill_(1)
        torch.openreg.caching_allocator_delete(pointer)

    @staticmethod
    def right(room):
        pointer = torch.openreg.caching_allocator_alloc(1000, 0)
        storage = torch._C._construct_storage_from_data_pointer(pointer, room.device, 4096)
        torch.empty(0, device=room.device).set_(storage, 0, (250,), (1,)).fill_(1)
        torch.openreg.caching_allocator_delete(pointer)


@exhibit("leak", "allocator", "CUDA, compute-sanitizer --leak-check: an allocation without its free", modes="leaks")
class NeverGivenBack:
    @staticmethod
    def wrong(room):
        with torch.openreg.sanitizer.leak_scope():
            room.kept = torch.openreg.caching_allocator_alloc(1024, 0)
        torch.openreg.caching_allocator_delete(room.kept)

    @staticmethod
    def right(room):
        with torch.openreg.sanitizer.leak_scope():
            room.kept = torch.openreg.caching_allocator_alloc(1024, 0)
            torch.openreg.caching_allocator_delete(room.kept)


@exhibit("leak", "autograd", "PyTorch FAQ: a total of losses keeps the graph of every step", modes="leaks")
class LossesKeepTheirGraphs:
    @staticmethod
    def wrong(room):
        weight, total = room.full(8).requires_grad_(), 0
        with torch.openreg.sanitizer.leak_scope():
            total = total + (weight * weight).sum()
        return total

    @staticmethod
    def right(room):
        weight, total = room.full(8).requires_grad_(), 0
        with torch.openreg.sanitizer.leak_scope():
            total = total + (weight * weight).sum().item()
        gc.collect()
        return total
