"""Sharing with other processes (L4): tensors in pipes, and what a forked child is told."""

import os
import select
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
        probe.expect(x.tolist() == [[1, 4], [2, 5], [3, 6]], "what the other process writes is not seen here: the tensor was copied")
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


@check
def a_forked_child_is_refused(probe):
    "A forked child that uses the device gets a RuntimeError that speaks of the fork, or right results; it does not hang or crash."
    torch.ones(2, device=probe.device)
    probe.synchronize()
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            found = (torch.ones(2, device=probe.device) + 1).tolist()
            word = "works" if found == [2, 2] else f"gets {found} for 1 + 1"
        except RuntimeError as error:
            word = "works" if "fork" in str(error).lower() else f"gets {type(error).__name__}, which does not speak of a fork: {error}"
        except BaseException as error:
            word = f"gets {type(error).__name__}: {error}"
        os.write(writing, word.encode()[:2000])
        os._exit(0)
    os.close(writing)
    try:
        answered, _, _ = select.select([reading], [], [], WAIT_SECONDS)
        word = os.read(reading, 2000).decode(errors="replace") if answered else f"hangs for {WAIT_SECONDS} s"
    finally:
        os.close(reading)
        if not answered:
            os.kill(child, 9)
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    probe.expect(word == "works", f"a forked child {word or f'ends with {status}'}")
