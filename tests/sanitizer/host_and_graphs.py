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
        with torch.openreg.graph(graph):
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
        with torch.openreg.graph(graph):
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
