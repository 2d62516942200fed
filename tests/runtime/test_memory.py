"""Device memory as the module shows it: statistics, limits, out of memory, pinned memory, and no way in for the host."""

import copy
import os
import signal

import pytest
import torch
import torch_openreg  # noqa: F401

MIB = 2**20


@pytest.mark.unsanitized("bounds", reason="guard zones make blocks larger than requested")
def test_allocated_memory_follows_tensors(device):
    before = torch.openreg.memory_allocated(device)
    other = torch.openreg.memory_allocated(1 - device.index)
    tensor = torch.empty(3 * MIB, dtype=torch.uint8, device=device)
    assert torch.openreg.memory_allocated(device) == before + 3 * MIB
    assert torch.openreg.memory_reserved(device) >= torch.openreg.memory_allocated(device)
    assert torch.openreg.memory_allocated(1 - device.index) == other
    del tensor
    assert torch.openreg.memory_allocated(device) == before


@pytest.mark.unsanitized("bounds", reason="guard zones make blocks larger than requested")
def test_the_peak_stays_until_it_is_reset(device):
    torch.openreg.reset_peak_memory_stats(device)
    before = torch.openreg.memory_allocated(device)
    assert torch.openreg.max_memory_allocated(device) == before
    torch.empty(5 * MIB, dtype=torch.uint8, device=device)
    assert torch.openreg.max_memory_allocated(device) == before + 5 * MIB
    assert torch.openreg.max_memory_reserved(device) >= torch.openreg.max_memory_allocated(device)
    torch.openreg.reset_peak_memory_stats(device)
    assert torch.openreg.max_memory_allocated(device) == before


@pytest.mark.unsanitized("bounds", reason="guard zones make blocks larger than requested")
def test_totals_grow_until_they_are_reset(device):
    torch.openreg.reset_accumulated_memory_stats(device)
    for _ in range(3):
        torch.empty(MIB, dtype=torch.uint8, device=device)
    stats = torch.openreg.memory_stats(device)
    assert stats["allocated_bytes.all.allocated"] == stats["allocated_bytes.all.freed"] == 3 * MIB
    torch.openreg.reset_accumulated_memory_stats(device)
    assert torch.openreg.memory_stats(device)["allocated_bytes.all.allocated"] == 0


def test_flat_and_nested_statistics_agree_with_torch_accelerator(device):
    tensor = torch.empty(1000, device=device)
    flat = torch.openreg.memory_stats(device)
    nested = torch.openreg.memory_stats_as_nested_dict(device)
    generic = torch.accelerator.memory_stats(device)
    assert generic and {key: flat[key] for key in generic} == generic
    assert all(key.startswith("reserved_bytes_by_private_pools.") for key in flat.keys() - generic.keys())
    assert flat["allocated_bytes.all.current"] == nested["allocated_bytes"]["all"]["current"] >= 4000
    assert flat["requested_bytes.all.current"] >= 4000
    assert all(value >= 0 for key, value in flat.items() if key != "max_split_size")
    assert flat["max_split_size"] == -1, "no limit, as on cuda"
    assert torch.accelerator.memory_allocated(device) == torch.openreg.memory_allocated(device)
    del tensor


def test_a_freed_block_is_used_again_on_the_same_stream(device):
    tensor = torch.empty(MIB, dtype=torch.uint8, device=device)
    pointer = tensor.data_ptr()
    reserved = torch.openreg.memory_reserved(device)
    del tensor
    assert torch.openreg.memory_reserved(device) == reserved
    assert torch.empty(MIB, dtype=torch.uint8, device=device).data_ptr() == pointer


def test_empty_cache_gives_memory_back_to_the_device(device):
    torch.openreg.synchronize(device)
    torch.openreg.empty_cache()
    free = torch.openreg.mem_get_info(device)[0]
    tensor = torch.empty(64 * MIB, dtype=torch.uint8, device=device)
    assert torch.openreg.mem_get_info(device)[0] <= free - 64 * MIB
    del tensor
    assert torch.openreg.mem_get_info(device)[0] <= free - 64 * MIB
    torch.openreg.empty_cache()
    assert torch.openreg.mem_get_info(device)[0] == free
    assert torch.accelerator.get_memory_info(device) == torch.openreg.mem_get_info(device)


def test_the_summary_is_a_table_with_the_current_numbers(device):
    tensor = torch.empty(2 * MIB, dtype=torch.uint8, device=device)
    summary = torch.openreg.memory_summary(device)
    assert summary.startswith(f"Memory of {device}: ")
    for title in ("Allocated memory", "Reserved memory", "in the large pool", "Segments", "Oversize segments"):
        assert title in summary
    assert len(torch.openreg.memory_summary(device, abbreviated=True).splitlines()) == 11
    assert torch.openreg.memory_summary() == torch.openreg.memory_summary(0)
    del tensor


def test_processes_are_listed_with_their_memory(device):
    tensor = torch.empty(2 * MIB, dtype=torch.uint8, device=device)
    lines = torch.openreg.list_gpu_processes(device).splitlines()
    assert lines[0] == f"GPU:{device.index}"
    (own,) = [line for line in lines[1:] if line.split()[1] == str(os.getpid())]
    free, total = torch.openreg.mem_get_info(device)
    assert f"{(total - free) / 2**20:.3f} MB GPU memory" in own
    del tensor


def test_the_names_of_torch_cuda_are_there():
    assert torch.openreg.get_allocator_backend() == "native"
    missing = set(torch.cuda.memory.__all__) - set(torch.openreg.memory.__all__)
    assert missing == {
        "CUDAPluggableAllocator",  # allocators of other libraries cannot be plugged in
        "change_current_allocator",
        "max_memory_cached",  # deprecated names of CUDA's
        "memory_cached",
        "memory_snapshot",
        "reset_max_memory_allocated",
        "reset_max_memory_cached",
    } - set(torch.openreg.memory.__all__)


def test_out_of_memory_is_torchs_own_error_and_leaves_the_device_usable(device):
    torch.openreg.reset_accumulated_memory_stats(device)
    allocated = torch.openreg.memory_allocated(device)
    total = torch.openreg.mem_get_info(device)[1]
    with pytest.raises(torch.OutOfMemoryError) as failure:
        torch.empty(2 * total, dtype=torch.uint8, device=device)
    assert str(device) in str(failure.value)
    assert torch.openreg.memory_stats(device)["num_ooms"] == 1
    assert torch.openreg.memory_allocated(device) == allocated
    assert torch.ones(3, device=device).sum().item() == 3


def test_the_cache_is_emptied_before_memory_counts_as_used_up(python):
    python(
        """
        import torch, torch_openreg
        MIB = 2**20
        for device in ("openreg:1", "openreg:0"):
            kept = torch.empty(40 * MIB, dtype=torch.uint8, device=device)
            with torch.openreg.stream(torch.openreg.Stream(device)):
                cached = torch.empty(60 * MIB, dtype=torch.uint8, device=device)
            del cached
            large = torch.empty(80 * MIB, dtype=torch.uint8, device=device)  # fits only without the cached 60
            stats = torch.openreg.memory_stats(device)
            assert stats["num_alloc_retries"] == 1 and stats["num_ooms"] == 0, stats
            try:
                torch.empty(80 * MIB, dtype=torch.uint8, device=device)
            except torch.OutOfMemoryError:
                pass
            else:
                assert False
            assert torch.openreg.memory_stats(device)["num_ooms"] == 1
            del large
            assert torch.empty(80 * MIB, dtype=torch.uint8, device=device).numel() == 80 * MIB
        """,
        env={"OPENREG_MEMORY": "128MiB"},
    )


@pytest.mark.parametrize("size", [2**62, 2**50])
def test_impossible_sizes_are_refused(device, size):
    with pytest.raises((torch.OutOfMemoryError, RuntimeError)):
        torch.empty(size, dtype=torch.uint8, device=device)
    with pytest.raises(RuntimeError):
        torch.empty(-size, device=device)


def test_empty_tensors_take_no_memory(device):
    before = torch.openreg.memory_allocated(device)
    tensor = torch.empty(0, 3, device=device)
    assert torch.openreg.memory_allocated(device) == before
    assert tensor.sum().item() == 0 and tensor.cpu().shape == (0, 3) and (tensor + 1).shape == (0, 3)


def test_growing_tensors_and_storages_keep_their_contents(device):
    tensor = torch.arange(4.0, device=device)
    tensor.resize_(1000)
    assert tensor[:4].tolist() == [0, 1, 2, 3]
    storage = torch.arange(4, dtype=torch.uint8, device=device).untyped_storage()
    storage.resize_(4096)
    assert storage.nbytes() == 4096 and storage[:4].tolist() == [0, 1, 2, 3]
    storage.resize_(0)
    assert storage.nbytes() == 0
    out = torch.empty(0, device=device)
    torch.add(torch.ones(5, device=device), 1, out=out)
    assert out.tolist() == [2] * 5
    assert out.device == storage.device == device


def test_ten_thousand_small_tensors_live_on_each_device(device):
    tensors = [torch.full((3,), i, dtype=torch.int64, device=device) for i in range(10_000)]
    torch.openreg.synchronize(device)
    assert tensors[0].tolist() == [0] * 3 and tensors[-1].tolist() == [9999] * 3
    assert len({tensor.data_ptr() for tensor in tensors}) == 10_000


def test_pinned_memory_is_pinned_and_counted(device):
    pinned = torch.ones(1000).pin_memory()
    assert pinned.is_pinned() and not torch.ones(10).is_pinned()
    assert torch.empty(10, pin_memory=True).is_pinned()
    assert torch.openreg.host_memory_stats()["allocated_bytes.current"] >= 4000
    on_device = pinned.to(device, non_blocking=True)
    back = on_device.to("cpu", non_blocking=True)
    torch.openreg.synchronize(device)
    assert back.is_pinned() and torch.equal(back, pinned)


def test_pinned_memory_is_kept_until_its_copy_has_run(device):
    with torch.openreg.device(device):
        torch.openreg._sleep(50_000_000)
        copies = []
        for number in range(20):
            source = torch.full((4096,), float(number)).pin_memory()
            copies.append(source.to(device, non_blocking=True))
            del source
        for number, copied in enumerate(copies):
            assert copied.eq(number).all()


def test_a_plain_copy_from_the_host_may_be_overwritten_at_once(device):
    with torch.openreg.device(device):
        torch.openreg._sleep(50_000_000)
        source = torch.ones(4096)
        copied = source.to(device)
        source.fill_(9)
        assert copied.eq(1).all()


def test_a_host_read_of_device_memory_faults_and_is_explained(python):
    for device in ("openreg:0", "openreg:1"):
        result = python(
            f"""
            import ctypes, torch, torch_openreg
            tensor = torch.ones(1024, device="{device}")
            torch.openreg.synchronize(tensor.device)
            print(ctypes.c_float.from_address(tensor.data_ptr() + 64).value)
            """,
            check=False,
        )
        assert result.returncode == -signal.SIGSEGV and result.stdout == ""
        assert f"device {device[-1]}" in result.stderr or device in result.stderr
        assert "offset 64" in result.stderr and ".cpu()" in result.stderr


def test_tensors_can_be_copied_deeply_and_saved(device, tmp_path):
    tensor = torch.arange(6.0, device=device).reshape(2, 3)
    copied = copy.deepcopy(tensor)
    assert copied.device == device and copied.data_ptr() != tensor.data_ptr() and torch.equal(copied, tensor)
    torch.save(tensor, tmp_path / "tensor.pt")
    for loaded in (
        torch.load(tmp_path / "tensor.pt"),
        torch.load(tmp_path / "tensor.pt", map_location=device),
        torch.load(tmp_path / "tensor.pt", map_location={str(device): str(device)}),
    ):
        assert loaded.device == device and torch.equal(loaded, tensor)
    assert torch.load(tmp_path / "tensor.pt", map_location="cpu").device.type == "cpu"
    with torch.openreg.device(1 - device.index):
        moved = torch.load(tmp_path / "tensor.pt", map_location="openreg")
        assert moved.device.index == 1 - device.index


def test_generated_methods_move_tensors_modules_and_storages(device):
    tensor = torch.ones(3).openreg(device.index)
    assert tensor.is_openreg and tensor.device == device and not torch.ones(1).is_openreg
    assert torch.nn.Linear(2, 2).openreg(device.index).weight.device == device
    assert torch.ones(3).untyped_storage().openreg(device).device == device


def test_every_function_of_torch_accelerator_memory_answers_for_the_device(device):
    torch.empty(100, device=device)
    pinned = torch.ones(1000).pin_memory()
    del pinned
    memory = torch.accelerator.memory
    calls = {name: (device,) for name in memory.__all__} | {"empty_cache": (), "empty_host_cache": (), "_snapshot": ()}
    own = {name for name, value in vars(memory).items() if getattr(value, "__module__", "") == memory.__name__}
    assert own == set(calls), "torch.accelerator.memory has other functions than this test knows"
    answers = {name: getattr(memory, name)(*arguments) for name, arguments in calls.items() if name != "_snapshot"}
    torch.empty(100, device=device)
    assert answers["memory_stats"].keys() == torch.openreg.memory_stats(device).keys()
    for name in ("memory_allocated", "memory_reserved"):
        assert getattr(memory, name)(device) == getattr(torch.openreg, name)(device)
    for name in ("max_memory_allocated", "max_memory_reserved"):
        assert answers[name] >= 512 and isinstance(answers[name], int)
    assert answers["get_memory_info"][1] == torch.openreg.mem_get_info(device)[1]
    assert torch.openreg.host_memory_stats()["allocated_bytes.current"] == torch.openreg.host_memory_stats()["active_bytes.current"]
