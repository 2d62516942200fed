"""The other process of test_sharing.py: serves calls over a pipe, and keeps what it is told to keep."""

import os
import pickle
from multiprocessing.reduction import ForkingPickler

import torch
import torch.multiprocessing

import torch_openreg


class Subclass(torch.Tensor):
    """A tensor subclass that the pickler knows nothing of."""


class Peer:
    """A process that does what `Peer.call` says, made by any start method."""

    def __init__(self, method="spawn"):
        context = torch.multiprocessing.get_context(method)
        self.pipe, there = context.Pipe()
        self.process = context.Process(target=serve, args=(there,), daemon=True)
        self.process.start()
        there.close()

    def call(self, function, *args):
        self.pipe.send((function.__name__, args))
        if not self.pipe.poll(100):
            raise TimeoutError(f"the peer does not answer {function.__name__}")
        failed, result = self.pipe.recv()
        if failed:
            raise RuntimeError(result)
        return result

    def end(self, function=None):
        if function is None:
            self.pipe.close()
        else:
            self.pipe.send((function.__name__, ()))
        self.process.join(60)
        return self.process.exitcode


kept = {}


def serve(pipe):
    if not torch.openreg.is_initialized() and not torch.openreg._is_in_bad_fork():
        torch_openreg.configure(schedule=os.environ.get("OPENREG_TEST_PEER_SCHEDULE", "eager"))  # nobody here waits for what the other process waits for
    while True:
        try:
            name, args = pipe.recv()
        except EOFError:
            return
        try:
            answer = False, globals()[name](*args)
            args = None
            pipe.send(answer)
        except Exception as error:
            pipe.send((True, f"{type(error).__name__}: {error}"))
        answer = args = None


# What a peer can do.


def describe(x):
    return type(x).__name__, str(x.dtype), tuple(x.shape), x.requires_grad, str(x.device), x.layout is torch.strided and x.stride()


def values(x):
    return x.detach().cpu()


def add(x, number):
    x.add_(number)
    torch.openreg.synchronize(x.device)


def alias(x, y):
    x.fill_(7)
    return y.tolist()


def keep(name, x):
    kept[name] = x


def drop(name):
    kept.pop(name)


def value(name):
    return kept[name].cpu()


def use_later(x):
    """Queues work that reads x, and lets x go."""
    kept["later"] = x * 2


def synchronize():
    torch.openreg.synchronize()


def make(shape, number, device):
    kept["made"] = torch.full(shape, float(number), device=device)
    return kept["made"]


def message(x):
    return bytes(ForkingPickler.dumps(x))


def opened(data):
    return pickle.loads(data).cpu()


def make_message():
    kept["made"] = torch.ones(4, device="openreg")
    return message(kept["made"])


def give_back():
    return kept["kept"]


def give_clone():
    kept["clone"] = kept["kept"].clone()
    return kept["clone"]


def collect():
    """Lets go of everything that was dropped: that happens behind the queued work of all streams."""
    for index in range(torch.openreg.device_count()):
        torch.openreg.synchronize(index)
    torch.openreg.ipc_collect()


def make_event(device):
    with torch.openreg.device(device):
        kept["event"] = torch.openreg.Event(interprocess=True)
    return kept["event"].ipc_handle()


def open_event(device, handle):
    kept["event"] = torch.openreg.Event.from_ipc_handle(device, handle)
    return kept["event"].query()


def record_event(sleep):
    stream = torch.openreg.Stream(kept["event"].device)
    with torch.openreg.stream(stream):
        torch.openreg._sleep(sleep)
        kept["event"].record()


def wait_event(x):
    torch.openreg.current_stream(x.device).wait_event(kept["event"])
    return (x + 0).tolist()


def query_event():
    return kept["event"].query()


def leave():
    os._exit(0)


def crash():
    os.kill(os.getpid(), 9)


def wait_kept_event(name):
    return wait_event(kept[name])


def increment(inbox, outbox):
    """Adds one to each tensor, and answers with a new one, its double, which it drops at once."""
    for x in iter(inbox.get, None):
        add(x, 1)
        outbox.put(x * 2)


def keep_and_fork(name, x):
    kept[name] = x
    child = os.fork()
    if child == 0:
        import time

        time.sleep(120)
        os._exit(0)
    return child


class DeviceData(torch.utils.data.Dataset):
    """Numbers on device 1, made where they are asked for."""

    def __len__(self):
        return 12

    def __getitem__(self, index):
        return torch.full((2,), float(index), device="openreg:1")
