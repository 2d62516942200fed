"""torch.openreg.faults: plans, the errors that programs meet, reports, and OPENREG_FAULTS. Needs the built extension and the simulator."""

import pytest
import torch

import torch_openreg  # noqa: F401

faults = torch.openreg.faults


@pytest.fixture
def matrix(device):
    """A matrix on the device, with `mm` and `add` warmed up: the first call of a kind waits."""
    matrix = torch.ones(4, 4, device=device)
    (matrix @ matrix + 1).sum().item()
    matrix.cpu()
    torch.openreg.synchronize(device)
    return matrix


def test_the_nth_launch_fails_late_and_once(device, matrix):
    with faults("launch:aten::mm#2=error") as report:
        matrix @ matrix
        torch.openreg.synchronize(device)
        assert report.waiting == ["launch:aten::mm#2=error"] and not report
        matrix @ matrix
        with pytest.raises(torch.AcceleratorError, match=r"aten::mm failed on openreg:.*the fault plan says so \(launch:aten::mm#2=error\)"):
            torch.openreg.synchronize(device)
        assert (matrix @ matrix).sum().item() == 64
    assert report.fired == [torch.openreg.Fault("launch:aten::mm#2=error", "aten::mm", device.index, 2)]
    assert report.count == 1 and "call 2" in str(report) and report.waiting == []


def test_the_nth_allocation_runs_out_of_memory_whatever_is_cached(device, matrix):
    with faults("alloc:2=oom"):
        first = torch.empty(10, device=device)
        with pytest.raises(torch.OutOfMemoryError, match="alloc:2=oom"):
            torch.empty(10, device=device)
        again = torch.empty(10, device=device)
    del first, again


def test_sticky_out_of_memory_stays_until_the_end_of_the_plan(device, matrix):
    with faults("alloc:1=oom,sticky"):
        for _ in range(3):
            with pytest.raises(torch.OutOfMemoryError):
                torch.empty(10, device=device)
    torch.empty(10, device=device)


def test_a_copy_is_corrupted_by_one_bit(device, matrix):
    source = torch.zeros(64, dtype=torch.uint8)
    with faults("copy:1=corrupt,seed=3") as report:
        arrived = source.to(device)
        torch.openreg.synchronize(device)
    assert report.count == 1
    assert sum(value.bit_count() for value in arrived.cpu().tolist()) == 1


def test_a_launch_is_corrupted_in_what_it_wrote(device, matrix):
    with faults("launch:aten::add*#1=corrupt,seed=5") as report:
        result = matrix + 1
        torch.openreg.synchronize(device)
    assert report.count == 1
    bits = result.cpu().view(torch.int32) ^ torch.full((4, 4), 2.0).view(torch.int32)
    assert sum((value & 0xFFFFFFFF).bit_count() for value in bits.flatten().tolist()) == 1
    assert matrix.cpu().equal(torch.ones(4, 4))


@pytest.mark.parametrize("seed", range(4))
def test_corruption_of_a_view_keeps_to_its_elements(device, seed):
    whole = torch.zeros(16, 16, device=device)
    with faults(f"launch:aten::fill_*=corrupt,seed={seed}") as report:
        whole[:, 3].fill_(0)
        torch.openreg.synchronize(device)
    assert report.count == 1
    bits = whole.cpu().view(torch.int32)
    assert bits.count_nonzero() == bits[:, 3].count_nonzero() == 1


def test_a_device_is_lost_at_a_call_and_comes_back(device, matrix):
    with faults(f"device:{device.index}#2=lost") as report:
        matrix + 1
        with pytest.raises(torch.AcceleratorError, match=r"the fault plan says so \(device:.#2=lost\)"):
            matrix + 1
        assert torch.openreg.is_lost(device)
        torch.openreg.reset(device)
        matrix.fill_(1)
        assert (matrix + 1).sum().item() == 32
    assert report.count == 1


@pytest.mark.unsanitized("races", "lifetime", "init", "bounds", reason="switches modes on by itself")
def test_what_the_sanitizer_adds_is_not_counted(device, matrix):
    with torch.openreg.sanitizer.collect("init,bounds"), faults(f"device:{device.index}#3=error") as report:
        first, second = matrix + 1, matrix + 2
        matrix + 3
        with pytest.raises(torch.AcceleratorError, match="the fault plan says so"):
            torch.openreg.synchronize(device)
    assert [fired.call for fired in report.fired] == ["aten::add.Tensor"]
    assert first.sum().item() + second.sum().item() == 80


def test_a_delay_delays_the_stream_only(device, matrix):
    start, end = (torch.openreg.Event(enable_timing=True) for _ in range(2))
    stream = torch.openreg.current_stream(device)
    with faults("launch:aten::add*#1=delay:30ms"):
        start.record(stream)
        matrix + 1
        end.record(stream)
        end.synchronize()
    assert start.elapsed_time(end) >= 30


def test_chance_is_a_function_of_the_seed(device, matrix):
    def failures(seed):
        with faults(f"launch:aten::add*=error@0.3,seed={seed}") as report:
            for _ in range(40):
                matrix + 1
                try:
                    torch.openreg.synchronize(device)
                except torch.AcceleratorError:
                    pass
        return [fault.number for fault in report.fired]

    first, again, other = failures(1), failures(1), failures(2)
    assert first == again != other and 3 < len(first) < 25


def test_plans_nest_and_the_inner_one_decides(device, matrix):
    with faults("alloc:1=oom") as outer, faults("alloc:1=delay:1us") as inner:
        torch.empty(10, device=device)
    assert outer.count == 0 and inner.count == 1
    with faults("alloc:2=oom") as outer:
        with faults("alloc:7=oom"):
            torch.empty(10, device=device)  # counts outside too
        with pytest.raises(torch.OutOfMemoryError):
            torch.empty(10, device=device)
    assert outer.count == 1


def test_the_layer_is_on_the_table_while_a_plan_holds(device, matrix):
    def layers():
        return torch_openreg._C.driver_info()["layers"]

    before = layers()
    with faults("alloc:1000=oom"):
        assert layers() == [*before, "faults"]
        with faults("copy:1000=error"):
            assert layers() == [*before, "faults"]
        assert layers() == [*before, "faults"]
    assert layers() == before


def test_an_exception_ends_the_plan(device, matrix):
    with pytest.raises(KeyError):
        with faults("launch:*=error"):
            raise KeyError
    assert (matrix + 1).sum().item() == 32


@pytest.mark.parametrize(
    "plan,message",
    [
        ("alloc:3=boom", r"The plan is no fault plan: at position 9 \('boom'\): expected what happens"),
        ("copy:1=error; collective:1=hang", r"at position 15 .* there are no collectives yet"),
        ("device:5=lost", "there is no device 5, only 2"),
    ],
)
def test_what_is_no_plan_is_refused_with_its_position(plan, message):
    with pytest.raises(ValueError, match=message):
        with faults(plan):
            pass


def test_the_plan_of_the_environment_holds_from_the_first_use_and_is_reported(python):
    result = python(
        """
        import torch, torch_openreg
        torch.ones(3, device="openreg")
        try:
            torch.ones(3, device="openreg")
        except torch.OutOfMemoryError as error:
            assert "alloc:2=oom" in str(error)
        else:
            assert False
        """,
        env={"OPENREG_FAULTS": "alloc:2=oom; copy:1000=error"},
    )
    assert "OPENREG_FAULTS made 1 fault happen" in result.stderr and "'copy:1000=error' of OPENREG_FAULTS never happened" in result.stderr


def test_a_bad_plan_of_the_environment_is_an_error_at_the_first_use(python):
    python(
        """
        import torch, torch_openreg
        for attempt in range(2):
            try:
                torch.ones(3, device="openreg")
            except ValueError as error:
                assert "OPENREG_FAULTS is no fault plan: at position 7" in str(error), error
            else:
                assert False
        """,
        env={"OPENREG_FAULTS": "alloc:x=oom"},
    )


def test_a_hang_of_the_environment_does_not_outlive_the_program(python):
    result = python(
        """
        import torch, torch_openreg
        a = torch.ones(4, 4, device="openreg")
        a @ a
        """,
        env={"OPENREG_FAULTS": "copy:1=hang", "OPENREG_STALL_SECONDS": "0.3", "OPENREG_STALL_ACTION": "abandon"},
        check=False,
    )
    assert "OPENREG_FAULTS made" in result.stderr
