"""Forked and spawned processes: devices do not survive a fork, everything else does."""

import subprocess
from pathlib import Path

import pytest
import torch

CSRC = Path(__file__).resolve().parents[2] / "csrc"
SENTENCE = (
    "Cannot re-initialize openreg in forked subprocess. To use openreg with multiprocessing, you must use the 'spawn' start method"
)


def test_a_fork_of_a_process_that_uses_devices_is_told_to_spawn(python):
    python(
        f"""
        import os, torch, torch_openreg
        x = torch.ones(4, device="openreg:1")
        torch.openreg.synchronize(1)
        pid = os.fork()
        if pid == 0:
            status = 1
            try:
                assert torch.openreg._is_in_bad_fork()
                assert not torch.openreg.is_initialized() and not torch.openreg._initialized
                assert torch.openreg.device_count() == 2
                for use in (
                    torch.openreg.init,
                    torch.openreg.current_device,
                    lambda: torch.empty(1, device="openreg"),
                    lambda: torch.openreg.set_device(1),
                    lambda: torch.openreg.synchronize(1),
                    lambda: torch.openreg.get_rng_state(),
                    lambda: x + 1,
                    lambda: x.cpu(),
                ):
                    try:
                        use()
                    except RuntimeError as error:
                        assert {SENTENCE!r} in str(error), error
                    else:
                        assert False
                status = 0
            except BaseException:
                import traceback
                traceback.print_exc()
            finally:
                os._exit(status)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
        assert (x + 1).tolist() == [2, 2, 2, 2]
        """
    )


def test_a_fork_can_compute_on_the_cpu_seed_and_exit_normally(python):
    result = python(
        """
        import os, sys, torch, torch_openreg
        x = torch.ones(4, device="openreg")
        torch.openreg._sleep(50_000_000)
        pid = os.fork()
        if pid == 0:
            torch.manual_seed(3)
            torch.openreg.manual_seed_all(3)
            torch.openreg.synchronize()
            torch.openreg.empty_cache()
            y = torch.ones(3, requires_grad=True)
            (y * 2).sum().backward()
            assert y.grad.tolist() == [2, 2, 2]
            del x
            sys.exit(7)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 7
        assert (x + 1).sum().item() == 8
        """
    )
    assert result.stderr == ""


def test_a_process_that_has_only_counted_devices_may_fork(python):
    python(
        """
        import os, torch, torch_openreg
        assert torch.openreg.is_available() and torch.openreg.device_count() == 2
        torch.manual_seed(3)
        pid = os.fork()
        if pid == 0:
            status = 1
            try:
                status = 0 if torch.ones(2, device="openreg:1").sum().item() == 2 else 1
            finally:
                os._exit(status)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
        assert torch.ones(2, device="openreg").sum().item() == 2
        """
    )


def test_training_on_the_cpu_does_not_keep_a_process_from_forking(python):
    python(
        """
        import os, torch, torch_openreg
        y = torch.ones(3, requires_grad=True)
        (y * 2).sum().backward()
        pid = os.fork()
        if pid == 0:
            status = 1
            try:
                status = 0 if torch.ones(2, device="openreg").sum().item() == 2 else 1
            finally:
                os._exit(status)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
        """
    )


def test_a_spawned_process_uses_devices_of_its_own(python, tmp_path):
    (tmp_path / "worker.py").write_text(
        "import torch, torch_openreg\n"
        "def work(number, queue):\n"
        "    queue.put((torch.full((3,), number, device='openreg:1') * 2).tolist())\n"
    )
    python(
        """
        import sys
        sys.path.insert(0, "")
        import torch, torch.multiprocessing as mp, torch_openreg, worker
        x = torch.ones(1, device="openreg")
        context = mp.get_context("spawn")
        queue = context.Queue()
        processes = [context.Process(target=worker.work, args=(n, queue)) for n in (1, 2)]
        for process in processes:
            process.start()
        results = sorted(queue.get(timeout=100) for _ in processes)
        for process in processes:
            process.join()
            assert process.exitcode == 0
        assert results == [[2, 2, 2], [4, 4, 4]], results
        """
    )


@pytest.mark.parametrize("pin", [False, True])
def test_a_data_loader_with_forked_workers_feeds_the_device(python, pin):
    python(
        f"""
        import torch, torch_openreg
        from torch.utils.data import DataLoader, TensorDataset
        warm = torch.ones(1, device="openreg") + 1
        data = TensorDataset(torch.arange(32.0).reshape(16, 2))
        loader = DataLoader(data, batch_size=4, num_workers=2, pin_memory={pin}, multiprocessing_context="fork")
        for epoch in range(2):
            total = sum(batch.to("openreg", non_blocking=True).sum() for (batch,) in loader)
            assert total.item() == 496
        """
    )


def test_a_fork_cannot_write_the_parents_device_memory_at_any_address(python):
    python(
        """
        import ctypes, os, signal, torch, torch_openreg
        x = torch.ones(1024, device="openreg:1")
        torch.openreg.synchronize(1)
        mapped = [line.split()[0].split("-") for line in open("/proc/self/maps") if "memfd:openreg" in line]
        addresses = [x.data_ptr()] + [int(start, 16) for start, _ in mapped]
        assert len(addresses) > 1
        for address in addresses:
            pid = os.fork()
            if pid == 0:
                ctypes.memset(address, 0, 64)
                os._exit(0)
            assert os.WTERMSIG(os.waitpid(pid, 0)[1]) == signal.SIGSEGV
        assert x.sum().item() == 1024
        """
    )


def test_a_child_keeps_no_lease_whatever_other_threads_do_during_the_fork(tmp_path):
    """lease_fork.cpp with the ledgers' source, by g++."""
    libraries = Path(torch.__file__).parent / "lib"
    program = tmp_path / "lease_fork"
    sources = [Path(__file__).with_name("lease_fork.cpp"), CSRC / "runtime" / "lease.cpp"]
    subprocess.run(["g++", "-std=c++20", "-O1", "-pthread", f"-I{CSRC}", f"-I{libraries.parent / 'include'}", *map(str, sources), "-o", str(program),
                    f"-L{libraries}", "-lc10", f"-Wl,-rpath,{libraries}"], check=True, timeout=300)  # fmt: skip
    result = subprocess.run([program, "200"], capture_output=True, text=True, timeout=120)
    assert result.returncode == 0 and result.stdout == "ok\n", result.stdout + result.stderr
