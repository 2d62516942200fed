"""Tensors, storages and events between processes: one memory for both, and no way to lose it, whoever ends first.

Needs the built extension. Each peer is a process that imports torch.
"""

import os
import pickle
import re
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import torch
import torch.multiprocessing
from torch.testing._internal.two_tensor import TwoTensor

import torch_openreg  # noqa: F401  (registers the device)

sys.path.insert(0, str(Path(__file__).parent))  # spawned processes inherit the path, and find peer.py

import peer as peers  # noqa: E402
from peer import Peer  # noqa: E402

pytestmark = pytest.mark.usefixtures("eager")  # a process does not run its queue because another one waits


@pytest.fixture(scope="module")
def peer():
    it = Peer()
    yield it
    assert it.end() == 0


@pytest.fixture
def own_peer():
    """A peer that the test ends, and the memory in use before."""
    it = Peer()
    yield it
    it.process.kill()
    it.process.join()
    peers.collect()


@pytest.fixture(autouse=True)
def peers_let_go(request):
    yield
    if "peer" in request.fixturenames:
        it = request.getfixturevalue("peer")
        peers.collect()
        it.call(peers.collect)
        torch.openreg.ipc_collect()


def used(device):
    return torch.openreg.memory_allocated(device)


def test_both_processes_work_on_one_memory(peer, device):
    x = torch.arange(6.0, device=device)
    assert peer.call(peers.values, x).tolist() == [0, 1, 2, 3, 4, 5]
    peer.call(peers.add, x, 10)
    assert x.tolist() == [10, 11, 12, 13, 14, 15]
    made = peer.call(peers.make, (3,), 4, str(device))
    assert made.device == device and made.tolist() == [4, 4, 4]
    made.mul_(5)
    torch.openreg.synchronize(device)
    assert peer.call(peers.value, "made").tolist() == [20, 20, 20]
    peer.call(peers.drop, "made")


@pytest.mark.parametrize(
    "dtype", [torch.bool, torch.uint8, torch.int64, torch.float16, torch.bfloat16, torch.float64, torch.complex64, torch.float8_e4m3fn], ids=str
)
def test_every_dtype_and_layout_arrives(peer, dtype, device):
    base = torch.arange(24).remainder(2).to(dtype).to(device).view(2, 3, 4)
    for x in (base, base.permute(2, 0, 1), base[1:, ::2], base[0, 0, 0]):
        assert peer.call(peers.describe, x) == peers.describe(x)
        assert peer.call(peers.values, x).tolist() == x.tolist()


def test_every_kind_of_tensor_arrives(peer, device):
    kinds = [
        torch.nn.Parameter(torch.ones(2, device=device)),
        torch.nn.Parameter(torch.ones(2, device=device), requires_grad=False),
        torch.ones(2, device=device).requires_grad_(),
        torch.ones(2, device=device).as_subclass(peers.Subclass),
        torch.empty(0, 3, device=device),
        torch.eye(3, device=device).to_sparse(),
        torch.eye(3, device=device).to_sparse_csr(),
        torch.ones(2),
        TwoTensor(torch.ones(2, device=device), torch.zeros(2, device=device)),
    ]
    for x in kinds:
        assert peer.call(peers.describe, x) == peers.describe(x), type(x)
    nested = torch.nested.nested_tensor([torch.ones(2), torch.zeros(3)], device=device, layout=torch.jagged)
    assert [row.tolist() for row in peer.call(peers.values, nested).unbind()] == [[1, 1], [0, 0, 0]]
    module = torch.nn.Linear(2, 2).to(device)
    assert torch.equal(peer.call(peers.values, module.state_dict()["weight"]), module.weight.detach().cpu())


def test_views_of_one_storage_alias_each_other_there_too(peer, device):
    x = torch.zeros(4, device=device)
    assert peer.call(peers.alias, x, x[1:3]) == [7, 7]
    assert x.tolist() == [7] * 4


@pytest.mark.unsanitized("bounds", reason="guard zones make blocks larger than requested")
def test_the_sender_keeps_memory_until_the_receiver_lets_go(peer, device):
    before = used(device)
    x = torch.full((1 << 16,), 3.0, device=device)
    peer.call(peers.keep, "kept", x)
    del x
    torch.openreg.ipc_collect()
    assert used(device) == before + (4 << 16)
    others = [torch.zeros(1 << 16, device=device) for _ in range(4)]  # would take the block if it were free
    torch.openreg.synchronize(device)
    assert peer.call(peers.value, "kept").eq(3).all()
    peer.call(peers.drop, "kept")
    peer.call(peers.collect)
    torch.openreg.ipc_collect()
    del others
    assert used(device) == before


def test_memory_that_both_have_dropped_is_used_again_when_memory_is_used_up(python):
    python(
        f"""
        import sys
        sys.path.insert(0, {str(Path(__file__).parent)!r})
        import torch, torch_openreg, peer
        if __name__ == "__main__":
            other = peer.Peer("spawn")
            x = torch.ones(6 << 20, dtype=torch.uint8, device="openreg")
            other.call(peer.keep, "kept", x)
            del x
            try:
                torch.ones(12 << 20, dtype=torch.uint8, device="openreg")
            except torch.OutOfMemoryError:
                other.call(peer.drop, "kept")
                other.call(peer.collect)
                assert torch.ones(12 << 20, dtype=torch.uint8, device="openreg").sum().item() == 12 << 20
            else:
                raise AssertionError
            assert other.end() == 0
        """,
        env={"OPENREG_MEMORY": "16MiB"},
    )


def test_a_crash_of_the_receiver_frees_what_it_had(own_peer, device):
    before = used(device)
    x = torch.ones(1 << 14, device=device)
    own_peer.call(peers.keep, "kept", x)
    del x
    torch.openreg.ipc_collect()
    assert used(device) > before
    assert own_peer.end(peers.crash) == -9
    torch.openreg.ipc_collect()
    assert used(device) == before


@pytest.mark.parametrize("end", [peers.leave, peers.crash], ids=["exit", "crash"])
def test_received_memory_outlives_its_sender(own_peer, end, device):
    x = own_peer.call(peers.make, (1 << 12,), 5, str(device))
    own_peer.end(end)
    x.add_(1)
    assert x.eq(6).all().item() and x.clone().sum().item() == 6 << 12


def test_a_message_of_a_process_that_has_ended_is_a_sentence(own_peer):
    data = own_peer.call(peers.make_message)
    process = own_peer.process.pid
    own_peer.end(peers.leave)
    with pytest.raises(RuntimeError, match=f"process {process} cannot be received, because that process has ended"):
        pickle.loads(data)


def test_a_message_can_be_opened_again_while_its_tensor_lives(peer, device):
    before = used(device)
    x = torch.ones(4, device=device)
    data = peers.message(x)
    assert peer.call(peers.opened, data).sum() == peer.call(peers.opened, data).sum() == 4
    peer.call(peers.collect)
    del x
    torch.openreg.ipc_collect()
    assert used(device) == before
    with pytest.raises(RuntimeError, match="has been given back"):
        peer.call(peers.opened, data)


def test_a_tensor_comes_back_to_its_own_process_as_the_same_memory(device):
    before = used(device)
    x = torch.ones(3, device=device)
    y = pickle.loads(peers.message(x))
    y.add_(1)
    torch.openreg.synchronize(device)
    assert x.tolist() == [2, 2, 2]
    del x, y
    peers.collect()
    assert used(device) == before


def test_what_was_received_is_not_sent_on_but_a_clone_is(peer, device):
    x = torch.ones(3, device=device)
    peer.call(peers.keep, "kept", x)
    with pytest.raises(RuntimeError, match="received from another process.*Send a clone"):
        peer.call(peers.give_back)
    assert peer.call(peers.give_clone).tolist() == [1, 1, 1]
    for name in ("kept", "clone"):
        peer.call(peers.drop, name)


def test_received_storages_do_not_grow_and_work_with_everything_else(own_peer, device):
    x = own_peer.call(peers.make, (4,), 2, str(device))
    with pytest.raises(RuntimeError, match="not resizable"):
        x.untyped_storage().resize_(1 << 20)
    stream = torch.openreg.Stream(device)
    with torch.openreg.stream(stream):
        y = x + 1
    x.record_stream(stream)
    stream.synchronize()
    assert y.tolist() == [3, 3, 3, 3] and x.cpu().tolist() == [2, 2, 2, 2]
    assert torch.cat([x, x]).sum().item() == 16 and x.to(torch.device("openreg", 1 - device.index)).sum().item() == 8


def test_a_non_leaf_is_refused(device):
    x = torch.ones(2, device=device, requires_grad=True) * 2
    with pytest.raises(RuntimeError, match="non-leaf"):
        peers.message(x)


def test_what_is_queued_is_done_before_the_receiver_looks(peer, device):
    x = torch.zeros(4, device=device)
    with torch.openreg.device(device):
        torch.openreg._sleep(100_000_000)
    x.fill_(5)
    assert peer.call(peers.values, x).tolist() == [5] * 4


def test_the_sender_waits_for_work_that_the_receiver_has_queued(monkeypatch):
    monkeypatch.setenv("OPENREG_TEST_PEER_SCHEDULE", "lazy")
    lazy, before = Peer(), used(0)
    try:
        x = torch.full((1 << 12,), 3.0, device="openreg:0")
        lazy.call(peers.use_later, x)
        del x
        torch.openreg.ipc_collect()
        assert used(0) > before  # the peer has dropped it, but its kernel has not run
        other = torch.zeros(1 << 12, device="openreg:0")
        torch.openreg.synchronize()
        lazy.call(peers.synchronize)
        assert lazy.call(peers.value, "later").eq(6).all()
        torch.openreg.ipc_collect()
        del other
        assert used(0) == before
    finally:
        lazy.end()


def test_a_process_that_sees_other_devices_finds_the_right_one(monkeypatch):
    monkeypatch.setenv("OPENREG_VISIBLE_DEVICES", "1")
    second = Peer()
    try:
        x, y = torch.ones(2, device="openreg:1"), torch.ones(2, device="openreg:0")
        assert second.call(peers.describe, x)[4] == "openreg:0" and second.call(peers.values, x).tolist() == [1, 1]
        with pytest.raises((EOFError, OSError)):  # the peer ends with a sentence about the device
            second.call(peers.values, y)
    finally:
        second.process.kill()
        second.process.join()
        del x, y
        torch.openreg.ipc_collect()


@pytest.mark.parametrize("method", ["spawn", "forkserver", "fork"])
def test_queues_of_every_start_method_carry_tensors(python, tmp_path, method):
    (tmp_path / "main.py").write_text(
        f"""
import sys
import threading
sys.path.insert(0, {str(Path(__file__).parent)!r})
import torch, torch.multiprocessing, torch_openreg, peer
if __name__ == "__main__":
    context = torch.multiprocessing.get_context({method!r})
    inbox, outbox = context.Queue(), context.SimpleQueue()
    process = context.Process(target=peer.increment, args=(inbox, outbox))
    process.start()  # before this process uses a device, so that a fork may use it
    for index in (1, 0):
        x = torch.full((3,), 4.0, device=f"openreg:{{index}}")
        inbox.put(x)
        y = outbox.get()
        assert y.tolist() == [10, 10, 10] and y.device == x.device and x.tolist() == [5, 5, 5]
    inbox.put(None)
    process.join()
    assert process.exitcode == 0 and y.tolist() == [10, 10, 10]
"""
    )
    python("import runpy; runpy.run_path('main.py', run_name='__main__')", fresh=True)  # its children import what __main__ is


def test_an_event_orders_streams_of_two_processes(peer, device):
    x = torch.zeros(3, device=device)
    event = torch.openreg.Event.from_ipc_handle(device, peer.call(peers.make_event, str(device)))
    assert event.query() and event.device == device
    peer.call(peers.record_event, 300_000_000)
    stream = torch.openreg.Stream(device)
    stream.wait_stream(torch.openreg.current_stream(device))
    with torch.openreg.stream(stream):
        event.wait()
        x.fill_(1)
    assert not event.query() and not stream.query()
    stream.synchronize()
    assert event.query() and peer.call(peers.query_event) and x.tolist() == [1, 1, 1]


def test_an_event_of_this_process_is_waited_for_in_another(peer, device):
    with torch.openreg.device(device):
        event = torch.openreg.Event(interprocess=True)
    assert peer.call(peers.open_event, str(device), event.ipc_handle())
    x, stream = torch.zeros(3, device=device), torch.openreg.Stream(device)
    peer.call(peers.keep, "x", x)
    stream.wait_stream(torch.openreg.current_stream(device))
    with torch.openreg.stream(stream):
        torch.openreg._sleep(200_000_000)
        x.fill_(9)
        event.record()
    x.record_stream(stream)
    assert peer.call(peers.wait_kept_event, "x") == [9, 9, 9]
    event.synchronize()
    peer.call(peers.drop, "x")


def test_events_that_cannot_be_shared_say_why(peer, device):
    with pytest.raises(ValueError, match="measures no time"):
        torch.openreg.Event(enable_timing=True, interprocess=True)
    with pytest.raises(RuntimeError, match="interprocess=True"):
        torch.openreg.Event().ipc_handle()
    with pytest.raises(ValueError, match="handle has 64 bytes"):
        torch.openreg.Event.from_ipc_handle(device, b"short")
    with pytest.raises(ValueError, match="no handle"):
        torch.openreg.Event.from_ipc_handle(device, os.urandom(64))
    handle = peer.call(peers.make_event, "openreg:0")
    with pytest.raises(ValueError, match="belongs to openreg:0, not to openreg:1"):
        torch.openreg.Event.from_ipc_handle(1, handle)


def test_a_data_loader_with_spawned_workers_sends_device_tensors(python):
    python(
        f"""
        import sys
        sys.path.insert(0, {str(Path(__file__).parent)!r})
        import torch, torch_openreg, peer
        from torch.utils.data import DataLoader
        warm = torch.ones(1, device="openreg:1")
        loader = DataLoader(peer.DeviceData(), batch_size=4, num_workers=1, multiprocessing_context="spawn")
        total = 0
        for batch in loader:
            assert batch.device == torch.device("openreg:1")
            total += batch.sum().item()
        assert total == sum(range(12)) * 2
        """
    )


def test_a_driver_that_shares_nothing_says_so(python):
    python(
        """
        import torch, torch_openreg
        from multiprocessing.reduction import ForkingPickler
        for use in (lambda: ForkingPickler.dumps(torch.ones(2, device="openreg")), lambda: torch.openreg.Event(interprocess=True)):
            try:
                use()
            except NotImplementedError as error:
                assert "'null' cannot share" in str(error), error
            else:
                raise AssertionError
        """,
        env={"OPENREG_DRIVER": "null"},
    )


def test_a_fork_of_a_receiver_holds_nothing(python):
    """The lock that a receiver holds is inherited by a fork, and would keep the sender's memory after the receiver's end."""
    python(
        f"""
        import os, sys, time
        sys.path.insert(0, {str(Path(__file__).parent)!r})
        import torch, torch_openreg, peer
        if __name__ == "__main__":
            other = peer.Peer("spawn")
            before = torch.openreg.memory_allocated()
            x = torch.ones(1 << 12, device="openreg")
            child = other.call(peer.keep_and_fork, "kept", x)
            del x
            other.pipe.send(("crash", ()))
            os.waitpid(other.process.pid, 0)
            torch.openreg.ipc_collect()
            os.kill(child, 0)  # it lives
            freed = torch.openreg.memory_allocated() == before
            os.kill(child, 9)
            assert freed
        """
    )


def test_a_message_whose_ledger_cannot_be_opened_says_why():
    """Ledgers of processes that have ended, that were never ones, that are other files by now, and that the system does not open."""
    import socket
    import struct

    x = torch.ones(64, device="openreg")
    name = torch_openreg._C.share_storage(x.untyped_storage())
    head = struct.Struct("<IiiiQII")  # version, device, then pid, fd, inode, entry, generation of the lease
    version, device, pid, fd, inode, entry, generation = head.unpack_from(name)
    assert pid == os.getpid()
    ended = subprocess.Popen(["true"])
    ended.wait()
    left, right = socket.socketpair()
    with left, right, open("/dev/null", "r+") as other_file:
        for wrong, sentence in [
            ((ended.pid, fd, inode), f"process {ended.pid} cannot be received, because that process has ended"),
            ((pid, other_file.fileno(), inode), "because that process has ended"),
            ((pid, fd, inode + 1), "because that process has ended"),
            ((pid, left.fileno(), inode + 2), f"/proc/{pid}/fd/{left.fileno()} cannot be opened: No such device or address"),
        ]:
            message = head.pack(version, device, *wrong, entry, generation) + name[head.size :]
            for _ in range(2):  # nothing is remembered of a ledger that was refused
                with pytest.raises(RuntimeError, match=re.escape(sentence)):
                    torch_openreg._C.open_storage(message)
    received = torch_openreg._C.open_storage(name)  # the true one still serves
    assert torch.empty(0, device="openreg").set_(received).sum().item() == 64
    del received, x
    peers.collect()


def test_threads_send_and_receive_at_the_same_time():
    def work(number):
        try:
            for count in range(50):
                x = torch.full((64,), float(count), device=f"openreg:{number % 2}")
                first, second = (pickle.loads(message) for message in [peers.message(x), peers.message(x)])
                first.add_(1)
                torch.openreg.synchronize(x.device)
                assert second[0].item() == x[0].item() == count + 1
            done.append(number)
        except Exception as error:
            done.append(error)

    done, before = [], [used(0), used(1)]
    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(map(str, done)) == ["0", "1", "2", "3"]
    peers.collect()
    assert [used(0), used(1)] == before


def test_import_gives_the_pickler_one_reducer_and_leaves_other_devices_to_torchs(python):
    python(
        """
        import pickle, torch, torch.multiprocessing
        from multiprocessing.reduction import ForkingPickler
        before = dict(ForkingPickler._extra_reducers)
        import torch_openreg
        after = ForkingPickler._extra_reducers
        assert {kind for kind in after if after[kind] is not before.get(kind)} == {torch.UntypedStorage}
        reduce = after[torch.UntypedStorage]
        x = torch.ones(3)
        assert reduce(x.untyped_storage())[0] is before[torch.UntypedStorage](x.untyped_storage())[0]
        assert pickle.loads(ForkingPickler.dumps(x)).tolist() == [1, 1, 1]
        try:
            reduce(torch.ones(2, device="meta").untyped_storage())
        except RuntimeError as error:
            assert "meta" in str(error)
        """,
        env={"TORCH_DEVICE_BACKEND_AUTOLOAD": "0"},
    )
