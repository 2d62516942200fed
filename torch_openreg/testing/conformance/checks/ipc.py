"""Sharing with other processes (L4): tensors in pipes. What a forked child is told belongs to the hooks (L1)."""

from multiprocessing.reduction import ForkingPickler

import torch
import torch.multiprocessing

from ..ipc_child import talk, without_main
from . import check

WAIT_SECONDS = 60


def _cannot_share(error: Exception) -> bool:
    return isinstance(error, NotImplementedError) or "only available on" in str(error) or "not supported" in str(error)


def _answer(probe, pipe, what: str):
    probe.expect(pipe.poll(WAIT_SECONDS), f"the other process did not {what} within {WAIT_SECONDS} s")
    try:
        return pipe.recv()
    except EOFError:
        probe.expect(False, f"the other process ended before it could {what}")


@check
def a_tensor_is_shared_with_another_process(probe):
    "A tensor that is sent to a spawned process lies in the same memory there: both see what either writes."
    context = torch.multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    x = torch.arange(6.0).to(probe.device).view(2, 3).t()
    try:
        message = ForkingPickler.dumps(x)
    except (NotImplementedError, RuntimeError) as error:
        probe.needs(not _cannot_share(error), f"{probe.type} memory cannot be shared: {' '.join(str(error).split())[:200]}")
        raise
    process = context.Process(target=talk, args=(probe.under_test.name, probe.under_test.module, theirs), daemon=True)
    with without_main():
        process.start()
    theirs.close()
    try:
        ours.send_bytes(message)
        device, strides, values = _answer(probe, ours, "receive the tensor")
        probe.expect(torch.device(device) == x.device, f"the other process has the tensor on {device}, expected {x.device}")
        probe.expect((strides, values) == (x.stride(), [[0, 3], [1, 4], [2, 5]]), f"the other process sees {values} with strides {strides}")
        _answer(probe, ours, "add one")
        probe.expect(x.cpu().tolist() == [[1, 4], [2, 5], [3, 6]], "what the other process writes is not seen here: the tensor was copied")
        x.mul_(10)
        probe.synchronize()
        ours.send("look")
        probe.expect(_answer(probe, ours, "look again") == [[10, 40], [20, 50], [30, 60]], "what is written here is not seen in the other process")
        process.join(WAIT_SECONDS)
        probe.expect(process.exitcode == 0, f"the other process ended with {process.exitcode}")
    finally:
        process.kill()
        process.join()
        ours.close()
