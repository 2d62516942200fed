"""Exhibits: two streams touch the same memory, one of them writes it, and nothing orders them."""

import torch
import torch.nn.functional as F

from museum import exhibit

STREAMS = "PyTorch notes, CUDA semantics, section on streams"
FORUM = "a question that comes back on PyTorch's forum"


@exhibit("race", "reduction", STREAMS + ": sum() may start before normal_() finishes")
class SumBeforeNormal:
    @staticmethod
    def wrong(room):
        a = torch.empty(100, 100, device=room.device).normal_(0.0, 1.0)
        with room.on(room.side):
            a.sum()

    @staticmethod
    def right(room):
        a = torch.empty(100, 100, device=room.device).normal_(0.0, 1.0)
        room.side.wait_stream(room.main)
        with room.on(room.side):
            a.sum()


@exhibit("race", "elementwise", STREAMS)
class ResultTakenBackWithoutWaiting:
    @staticmethod
    def wrong(room):
        a = room.matrix()
        room.side.wait_stream(room.main)
        with room.on(room.side):
            a.mul_(2)
        return a + 1

    @staticmethod
    def right(room):
        a = room.matrix()
        room.side.wait_stream(room.main)
        with room.on(room.side):
            a.mul_(2)
        room.main.wait_stream(room.side)
        return a + 1


@exhibit("race", "matmul", "Megatron-LM and FSDP: a weight is gathered on one stream and multiplied on another")
class WeightStillBeingGathered:
    @staticmethod
    def wrong(room):
        weight, shard, x = room.matrix(), room.matrix(), room.matrix()
        room.side.wait_stream(room.main)
        with room.on(room.side):
            weight.copy_(shard)
        return x @ weight

    @staticmethod
    def right(room):
        weight, shard, x = room.matrix(), room.matrix(), room.matrix()
        room.side.wait_stream(room.main)
        with room.on(room.side):
            weight.copy_(shard)
            gathered = room.side.record_event()
        room.main.wait_event(gathered)
        return x @ weight


@exhibit("race", "copy from the host", "NVIDIA Apex, data_prefetcher: next() must wait for the copying stream")
class BatchStillBeingCopied:
    @staticmethod
    def wrong(room):
        batch, host = room.full(64, 64), room.pinned(64, 64)
        room.side.wait_stream(room.main)
        with room.on(room.side):
            batch.copy_(host, non_blocking=True)
        return batch.relu()

    @staticmethod
    def right(room):
        batch, host = room.full(64, 64), room.pinned(64, 64)
        room.side.wait_stream(room.main)
        with room.on(room.side):
            batch.copy_(host, non_blocking=True)
        room.main.wait_stream(room.side)
        return batch.relu()


@exhibit("race", "in-place", FORUM + ": overwriting what another stream still reads")
class OverwrittenWhileRead:
    @staticmethod
    def wrong(room):
        a = room.matrix()
        room.side.wait_stream(room.main)
        with room.on(room.side):
            kept = torch.exp(a)
        a.add_(1)
        return kept

    @staticmethod
    def right(room):
        a = room.matrix()
        room.side.wait_stream(room.main)
        with room.on(room.side):
            kept = torch.exp(a)
        room.main.wait_stream(room.side)
        a.add_(1)
        return kept


@exhibit("race", "fill", "PyTorch DDP: gradients are zeroed on one stream and accumulated on another")
class GradientsZeroedOnTheSide:
    @staticmethod
    def wrong(room):
        gradient, part = room.matrix(), room.matrix()
        room.side.wait_stream(room.main)
        with room.on(room.side):
            gradient.zero_()
        gradient.add_(part)

    @staticmethod
    def right(room):
        gradient, part = room.matrix(), room.matrix()
        room.side.wait_stream(room.main)
        with room.on(room.side):
            gradient.zero_()
        room.main.wait_stream(room.side)
        gradient.add_(part)


@exhibit("race", "optimizer", "PyTorch, torch.optim over several streams: step() must wait for backward()")
class StepBeforeBackwardEnded:
    @staticmethod
    def wrong(room):
        parameter = torch.nn.Parameter(room.matrix())
        optimizer = torch.optim.SGD([parameter], lr=0.1, momentum=0.9, foreach=True)
        parameter.grad = room.matrix()
        optimizer.step()
        with room.on(room.side):
            optimizer.step()

    @staticmethod
    def right(room):
        parameter = torch.nn.Parameter(room.matrix())
        optimizer = torch.optim.SGD([parameter], lr=0.1, momentum=0.9, foreach=True)
        parameter.grad = room.matrix()
        optimizer.step()
        room.side.wait_stream(room.main)
        with room.on(room.side):
            optimizer.step()


@exhibit("race", "event", "CUDA programming guide: an event stands for what was enqueued before its record")
class EventRecordedTooEarly:
    @staticmethod
    def wrong(room):
        a = room.matrix()
        early = room.main.record_event()
        a.mul_(3)
        room.side.wait_event(early)
        with room.on(room.side):
            return a.sqrt()

    @staticmethod
    def right(room):
        a = room.matrix()
        a.mul_(3)
        ready = room.main.record_event()
        room.side.wait_event(ready)
        with room.on(room.side):
            return a.sqrt()


@exhibit("race", "normalization", STREAMS)
class NormalizedTooSoon:
    @staticmethod
    def wrong(room):
        x = room.matrix()
        with room.on(room.side):
            return F.layer_norm(x, (32,))

    @staticmethod
    def right(room):
        x = room.matrix()
        room.side.wait_stream(room.main)
        with room.on(room.side):
            return F.layer_norm(x, (32,))


@exhibit("race", "softmax", STREAMS)
class TwoProducersOneConsumer:
    @staticmethod
    def wrong(room):
        a, b = room.matrix(), room.matrix()
        room.side.wait_stream(room.main)
        room.third.wait_stream(room.main)
        with room.on(room.side):
            a.mul_(2)
        with room.on(room.third):
            b.mul_(2)
        room.main.wait_stream(room.side)
        return (a + b).softmax(-1)

    @staticmethod
    def right(room):
        a, b = room.matrix(), room.matrix()
        room.side.wait_stream(room.main)
        room.third.wait_stream(room.main)
        with room.on(room.side):
            a.mul_(2)
        with room.on(room.third):
            b.mul_(2)
        room.main.wait_stream(room.side)
        room.main.wait_stream(room.third)
        return (a + b).softmax(-1)


@exhibit("race", "random", STREAMS)
class NoiseMadeOnTheSide:
    @staticmethod
    def wrong(room):
        noise = room.matrix()
        room.side.wait_stream(room.main)
        with room.on(room.side):
            noise.normal_()
        return noise * 0.1

    @staticmethod
    def right(room):
        noise = room.matrix()
        room.side.wait_stream(room.main)
        with room.on(room.side):
            noise.normal_()
        room.main.wait_stream(room.side)
        return noise * 0.1


@exhibit("race", "concatenation", STREAMS)
class ConcatenatedTooSoon:
    @staticmethod
    def wrong(room):
        a, b = room.matrix(), room.matrix()
        room.side.wait_stream(room.main)
        with room.on(room.side):
            b.fill_(3)
        return torch.cat([a, b])

    @staticmethod
    def right(room):
        a, b = room.matrix(), room.matrix()
        room.side.wait_stream(room.main)
        with room.on(room.side):
            b.fill_(3)
        room.main.wait_stream(room.side)
        return torch.cat([a, b])


@exhibit("race", "convolution", "NVIDIA Apex, data_prefetcher: the copy is converted on the side and convolved on the main stream")
class ImageStillBeingConverted:
    @staticmethod
    def wrong(room):
        image, weight = room.full(1, 3, 8, 8), room.full(4, 3, 3, 3)
        room.side.wait_stream(room.main)
        with room.on(room.side):
            image.sub_(0.5).div_(0.25)
        return F.conv2d(image, weight)

    @staticmethod
    def right(room):
        image, weight = room.full(1, 3, 8, 8), room.full(4, 3, 3, 3)
        room.side.wait_stream(room.main)
        with room.on(room.side):
            image.sub_(0.5).div_(0.25)
        room.main.wait_stream(room.side)
        return F.conv2d(image, weight)


@exhibit("race", "batch norm", FORUM + ": evaluation beside training shares the running statistics")
class RunningStatisticsRead:
    @staticmethod
    def wrong(room):
        x, mean, variance = room.full(4, 8), room.full(8), room.full(8)
        room.side.wait_stream(room.main)
        F.batch_norm(x, mean, variance, training=True)
        with room.on(room.side):
            return F.batch_norm(x, mean, variance, training=False)

    @staticmethod
    def right(room):
        x, mean, variance = room.full(4, 8), room.full(8), room.full(8)
        F.batch_norm(x, mean, variance, training=True)
        room.side.wait_stream(room.main)
        with room.on(room.side):
            return F.batch_norm(x, mean, variance, training=False)


@exhibit("race", "attention", "vLLM: the cache is written on one stream and attended to on another")
class KeysStillBeingWritten:
    @staticmethod
    def wrong(room):
        query, key, value = (room.full(1, 2, 8, 16) for _ in range(3))
        room.side.wait_stream(room.main)
        with room.on(room.side):
            key.mul_(0.5)
        return F.scaled_dot_product_attention(query, key, value)

    @staticmethod
    def right(room):
        query, key, value = (room.full(1, 2, 8, 16) for _ in range(3))
        room.side.wait_stream(room.main)
        with room.on(room.side):
            key.mul_(0.5)
        room.main.wait_stream(room.side)
        return F.scaled_dot_product_attention(query, key, value)


@exhibit("race", "loss", STREAMS)
class TargetsStillBeingCopied:
    @staticmethod
    def wrong(room):
        scores, targets = room.full(8, 10), torch.zeros(8, dtype=torch.long, device=room.device)
        room.side.wait_stream(room.main)
        with room.on(room.side):
            targets.fill_(1)
        return F.cross_entropy(scores, targets)

    @staticmethod
    def right(room):
        scores, targets = room.full(8, 10), torch.zeros(8, dtype=torch.long, device=room.device)
        room.side.wait_stream(room.main)
        with room.on(room.side):
            targets.fill_(1)
        room.main.wait_stream(room.side)
        return F.cross_entropy(scores, targets)


@exhibit("race", "recurrent", STREAMS)
class StateStillBeingReset:
    @staticmethod
    def wrong(room):
        cell, x, state = torch.nn.GRUCell(4, 8, device=room.device), room.full(2, 4), room.full(2, 8)
        room.side.wait_stream(room.main)
        with room.on(room.side):
            state.zero_()
        return cell(x, state)

    @staticmethod
    def right(room):
        cell, x, state = torch.nn.GRUCell(4, 8, device=room.device), room.full(2, 4), room.full(2, 8)
        room.side.wait_stream(room.main)
        with room.on(room.side):
            state.zero_()
        room.main.wait_stream(room.side)
        return cell(x, state)


@exhibit("race", "views", "PyTorch issue reports on views: a column is memory of the whole matrix")
class ColumnsThatOverlap:
    @staticmethod
    def wrong(room):
        table = room.full(32, 8)
        room.side.wait_stream(room.main)
        with room.on(room.side):
            table[:, :5].mul_(2)
        table[:, 4:].mul_(2)

    @staticmethod
    def right(room):
        table = room.full(32, 8)
        room.side.wait_stream(room.main)
        with room.on(room.side):
            table[:, :4].mul_(2)
        table[:, 4:].mul_(2)


@exhibit("race", "index_copy_", "vLLM: slots of the cache are written while others are read")
class CacheSlotsThatMeet:
    @staticmethod
    def wrong(room):
        cache, keys = room.full(16, 4), room.full(2, 4)
        slots = torch.tensor([2, 3], device=room.device)
        room.side.wait_stream(room.main)
        with room.on(room.side):
            cache.index_copy_(0, slots, keys)
        return cache[3:6].sum()

    @staticmethod
    def right(room):
        cache, keys = room.full(16, 4), room.full(2, 4)
        slots = torch.tensor([2, 3], device=room.device)
        room.side.wait_stream(room.main)
        with room.on(room.side):
            cache.index_copy_(0, slots, keys)
        return cache[4:6].sum()


@exhibit("race", "scatter_", "vLLM: block tables are updated by scatter on the copying stream")
class ScatteredWhereOthersRead:
    @staticmethod
    def wrong(room):
        table, index = room.full(4, 6), torch.tensor([[1], [1], [1], [1]], device=room.device)
        room.side.wait_stream(room.main)
        with room.on(room.side):
            table.scatter_(1, index, 5.0)
        return table[:, 1].exp()

    @staticmethod
    def right(room):
        table, index = room.full(4, 6), torch.tensor([[1], [1], [1], [1]], device=room.device)
        room.side.wait_stream(room.main)
        with room.on(room.side):
            table.scatter_(1, index, 5.0)
        return table[:, 2].exp()


@exhibit("race", "embedding", "TorchRec and DLRM: rows are looked up while the optimizer writes some of them")
class RowsLookedUpWhileWritten:
    @staticmethod
    def wrong(room):
        table, rows = room.full(16, 4), torch.tensor([5, 6], device=room.device)
        room.side.wait_stream(room.main)
        with room.on(room.side):
            table[6:8].add_(1)
        return F.embedding(rows, table)

    @staticmethod
    def right(room):
        table, rows = room.full(16, 4), torch.tensor([5, 6], device=room.device)
        room.side.wait_stream(room.main)
        with room.on(room.side):
            table[7:9].add_(1)
        return F.embedding(rows, table)


@exhibit("race", "copy between devices", "PyTorch notes, CUDA semantics: a copy between devices is ordered with the current streams only")
class CopiedFromBesideTheCurrentStream:
    @staticmethod
    def wrong(room):
        here, there = room.full(64), room.full(64, device="openreg:1")
        room.side.wait_stream(room.main)
        with room.on(room.side):
            here.fill_(2)
        there.copy_(here)

    @staticmethod
    def right(room):
        here, there = room.full(64), room.full(64, device="openreg:1")
        room.side.wait_stream(room.main)
        with room.on(room.side):
            here.fill_(2)
        room.main.wait_stream(room.side)
        there.copy_(here)


@exhibit("race", "sparse", STREAMS)
class SparseValuesStillBeingScaled:
    @staticmethod
    def wrong(room):
        matrix = torch.eye(8, device=room.device).to_sparse()
        values, x = matrix._values(), room.full(8, 8)
        room.side.wait_stream(room.main)
        with room.on(room.side):
            values.mul_(2)
        return torch.sparse.mm(matrix, x)

    @staticmethod
    def right(room):
        matrix = torch.eye(8, device=room.device).to_sparse()
        values, x = matrix._values(), room.full(8, 8)
        room.side.wait_stream(room.main)
        with room.on(room.side):
            values.mul_(2)
        room.main.wait_stream(room.side)
        return torch.sparse.mm(matrix, x)


@exhibit("race", "sort", STREAMS)
class SortedTooSoon:
    @staticmethod
    def wrong(room):
        scores = room.full(64)
        room.side.wait_stream(room.main)
        with room.on(room.side):
            scores.uniform_()
        return scores.topk(4)

    @staticmethod
    def right(room):
        scores = room.full(64)
        room.side.wait_stream(room.main)
        with room.on(room.side):
            scores.uniform_()
        room.main.wait_stream(room.side)
        return scores.topk(4)
