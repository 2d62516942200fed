"""Exhibits: the host touches pinned memory too early, and graphs race inside or with what is around them."""

import torch

from museum import exhibit

FORUM = "a question that comes back on PyTorch's forum"

# ---- The host -----------------------------------------------------------------

GUIDE = "PyTorch tutorial, A guide on good usage of non_blocking and pin_memory()"


@exhibit("race", "host reads", GUIDE)
class HostReadsBeforeTheCopyEnded:
    @staticmethod
    def wrong(room):
        a, host = room.matrix(), room.pinned(32, 32)
        host.copy_(a, non_blocking=True)
        return host.sum()

    @staticmethod
    def right(room):
        a, host = room.matrix(), room.pinned(32, 32)
        host.copy_(a, non_blocking=True)
        torch.openreg.synchronize()
        return host.sum()


@exhibit("race", "host writes", GUIDE + ": the buffer may be changed only after the copy has ended")
class StagingBufferOverwritten:
    @staticmethod
    def wrong(room):
        a, host = room.matrix(), room.pinned(32, 32)
        a.copy_(host, non_blocking=True)
        host.fill_(7)

    @staticmethod
    def right(room):
        a, host = room.matrix(), room.pinned(32, 32)
        a.copy_(host, non_blocking=True)
        room.main.synchronize()
        host.fill_(7)


@exhibit("race", "item", FORUM + ": a flag is copied without blocking and looked at")
class FlagLookedAtTooSoon:
    @staticmethod
    def wrong(room):
        a, flag = room.full(1), room.pinned(1)
        flag.copy_(a, non_blocking=True)
        copied = room.main.record_event()
        return flag.item(), copied

    @staticmethod
    def right(room):
        a, flag = room.full(1), room.pinned(1)
        flag.copy_(a, non_blocking=True)
        copied = room.main.record_event()
        copied.synchronize()
        return flag.item(), copied


@exhibit("race", "tolist", GUIDE)
class ListMadeBeforeTheCopyEnded:
    @staticmethod
    def wrong(room):
        a, host = room.matrix(), room.pinned(32, 32)
        host.copy_(a, non_blocking=True)
        return host.tolist()

    @staticmethod
    def right(room):
        a, host = room.matrix(), room.pinned(32, 32)
        host.copy_(a, non_blocking=True)
        torch.openreg.synchronize()
        return host.tolist()


@exhibit("race", "scalar operand", FORUM + ": a loss scale of the host is an operand, and is read when the call is made")
class ScaleReadTooSoon:
    @staticmethod
    def wrong(room):
        a, scale = room.matrix(), room.pinned()
        scale.copy_(a.sum(), non_blocking=True)
        return a * scale

    @staticmethod
    def right(room):
        a, scale = room.matrix(), room.pinned()
        scale.copy_(a.sum(), non_blocking=True)
        torch.openreg.synchronize()
        return a * scale


@exhibit("race", "host function", "CUDA programming guide, cudaLaunchHostFunc: a function comes behind the work of its own stream")
class BufferFilledByAFunctionOfAnotherStream:
    @staticmethod
    def wrong(room):
        a, host = room.matrix(), room.pinned(32, 32)
        a.copy_(host, non_blocking=True)
        room.side.launch_host_func(lambda: host.fill_(1))
        return a

    @staticmethod
    def right(room):
        a, host = room.matrix(), room.pinned(32, 32)
        a.copy_(host, non_blocking=True)
        room.side.wait_stream(room.main)
        room.side.launch_host_func(lambda: host.fill_(1))
        return a


# ---- Graphs -------------------------------------------------------------------

GRAPHS = "PyTorch notes, CUDA graphs: a replay is ordered like any work of its stream"


@exhibit("race", "graph capture", GRAPHS)
class SideOfAGraphReadsWhatTheOriginWrites:
    @staticmethod
    def wrong(room):
        a, out = room.matrix(), room.matrix()
        a.mul_(2)
        out.copy_(a)
        graph = torch.openreg.Graph()
        with torch.openreg.graph(graph, stream=room.third):  # not the side stream, which the default one may be
            origin = torch.openreg.current_stream()
            room.side.wait_stream(origin)
            with room.on(room.side):
                out.copy_(a)
            a.mul_(2)
            origin.wait_stream(room.side)
        return graph

    @staticmethod
    def right(room):
        a, out = room.matrix(), room.matrix()
        a.mul_(2)
        out.copy_(a)
        graph = torch.openreg.Graph()
        with torch.openreg.graph(graph, stream=room.third):  # not the side stream, which the default one may be
            origin = torch.openreg.current_stream()
            a.mul_(2)
            room.side.wait_stream(origin)
            with room.on(room.side):
                out.copy_(a)
            origin.wait_stream(room.side)
        graph.replay()
        return graph


@exhibit("race", "graph replay", GRAPHS)
class InputWrittenDuringTheReplay:
    @staticmethod
    def wrong(room):
        a = room.matrix()
        a.mul_(2)
        graph = torch.openreg.Graph()
        with torch.openreg.graph(graph):
            b = a.mul(2)
        a.fill_(3)
        with room.on(room.side):
            graph.replay()
        a.fill_(1)
        return graph, b

    @staticmethod
    def right(room):
        a = room.matrix()
        a.mul_(2)
        graph = torch.openreg.Graph()
        with torch.openreg.graph(graph):
            b = a.mul(2)
        a.fill_(3)
        room.side.wait_stream(room.main)
        with room.on(room.side):
            graph.replay()
        room.main.wait_stream(room.side)
        a.fill_(1)
        return graph, b


@exhibit("race", "index_copy_ in a graph", "vLLM: slots of the cache are written on a side stream of the captured step")
class SlotsOfAGraphThatMeet:
    @staticmethod
    def wrong(room):
        cache, rows, slots = room.matrix(), room.full(2, 32), torch.tensor([3, 9], device=room.device)
        cache.index_copy_(0, slots, rows)
        cache[8:].sum()
        graph = torch.openreg.Graph()
        with torch.openreg.graph(graph, stream=room.third):  # not the side stream, which the default one may be
            origin = torch.openreg.current_stream()
            room.side.wait_stream(origin)
            with room.on(room.side):
                cache.index_copy_(0, slots, rows)
            cache[8:].sum()
            origin.wait_stream(room.side)
        graph.replay()
        return graph

    @staticmethod
    def right(room):
        cache, rows, slots = room.matrix(), room.full(2, 32), torch.tensor([3, 9], device=room.device)
        cache.index_copy_(0, slots, rows)
        cache[10:].sum()
        graph = torch.openreg.Graph()
        with torch.openreg.graph(graph, stream=room.third):  # not the side stream, which the default one may be
            origin = torch.openreg.current_stream()
            room.side.wait_stream(origin)
            with room.on(room.side):
                cache.index_copy_(0, slots, rows)
            cache[10:].sum()
            origin.wait_stream(room.side)
        graph.replay()
        return graph


@exhibit("lifetime", "graph input", "PyTorch notes, CUDA graphs: a replay reads and writes the same addresses, which must not have been freed")
class InputFreedAfterTheCapture:
    @staticmethod
    def wrong(room):
        a = room.matrix()
        a.mul(2)
        graph = torch.openreg.Graph()
        with torch.openreg.graph(graph):
            b = a.mul(2)
        a = room.matrix()
        graph.replay()
        return graph, a, b

    @staticmethod
    def right(room):
        a = room.matrix()
        a.mul(2)
        graph = torch.openreg.Graph()
        with torch.openreg.graph(graph):
            b = a.mul(2)
            b = b.mul(2)
        a.copy_(room.matrix())
        graph.replay()
        return graph, a, b
