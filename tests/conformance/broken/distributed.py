"""Wrong collectives: they move nothing."""

import torch.distributed

from . import variant


class Nothing(torch.distributed.ProcessGroup):
    """Collectives that return finished work and move nothing."""

    def _done(self, *args):
        future = torch.futures.Future()
        future.set_result(None)
        return torch._C._distributed_c10d._create_work_from_future(future)

    allreduce = broadcast = allgather = barrier = _done


@variant({
    "check.distributed.collectives_of_one_move_data": "all_gather in a group of one gathered [0.0, 0.0, 0.0, 0.0], expected 0 to 3",
    "check.distributed.work_can_be_waited_for": "after wait the gathered values are 0, expected 2",
})  # fmt: skip
def collectives_move_nothing():
    "The backend for torch.distributed returns finished work and moves nothing."
    torch.distributed.Backend.register_backend("nothing", lambda store, rank, size, timeout: Nothing(rank, size), devices=["openreg"])
