"""Collectives (L5) in a process group of one, for a device with a backend of torch.distributed."""

from contextlib import contextmanager

import torch
import torch.distributed

from . import check


@contextmanager
def _group(probe):
    """A process group of this process alone, with the device's own backend."""
    probe.needs(torch.distributed.is_available(), "this PyTorch has no torch.distributed")
    backend = torch.distributed.Backend.default_device_backend_map.get(probe.type)
    probe.needs(backend is not None, f"torch.distributed has no backend for {probe.type}")
    probe.needs(not torch.distributed.is_initialized(), "the process has a process group already")
    torch.distributed.init_process_group(backend, store=torch.distributed.HashStore(), rank=0, world_size=1)
    try:
        yield
    finally:
        torch.distributed.destroy_process_group()


@check
def collectives_of_one_move_data(probe):
    "In a group of one process all_reduce and broadcast keep their tensor, and gathers and scatters write their result."
    with _group(probe):
        for name, call in {
            "all_reduce": lambda x: torch.distributed.all_reduce(x),
            "broadcast": lambda x: torch.distributed.broadcast(x, 0),
        }.items():
            x = torch.arange(4.0).to(probe.device)
            call(x)
            probe.synchronize()
            probe.expect(x.cpu().tolist() == [0, 1, 2, 3], f"{name} in a group of one turned 0 to 3 into {x.cpu().tolist()}")
        x, y = torch.arange(4.0).to(probe.device), torch.zeros(4, device=probe.device)
        torch.distributed.all_gather([y], x)
        probe.synchronize()
        probe.expect(y.cpu().tolist() == [0, 1, 2, 3], f"all_gather in a group of one gathered {y.cpu().tolist()}, expected 0 to 3")


@check
def work_can_be_waited_for(probe):
    "A collective with async_op=True returns work whose wait orders the current stream behind it; a barrier returns."
    with _group(probe):
        x, y = torch.ones(1000, device=probe.device), torch.zeros(1000, device=probe.device)
        work = torch.distributed.all_gather([y], x * 2, async_op=True)
        work.wait()
        found = (y + 1).cpu()
        probe.expect(work.is_completed(), "work that was waited for is not completed")
        probe.expect(bool((found == 3).all()), f"after wait the gathered values are {found[0].item() - 1:g}, expected 2")
        torch.distributed.barrier()
