"""What the engine must not disturb: the process's flags, copy-on-write memory, sparse members, and callers whose work was skipped."""

import threading

import pytest
import torch

import torch_openreg  # noqa: F401


def test_a_copy_on_write_storage_is_not_written_through(device):
    a = torch.zeros(4, device=device)
    b = torch._lazy_clone(a)
    b.cos_()
    assert a.tolist() == [0, 0, 0, 0] and b.tolist() == [1, 1, 1, 1]


def test_running_statistics_on_a_copy_on_write_storage_are_not_written_through(device):
    x, mean, variance = (t.to(device) for t in (torch.arange(12.0).view(4, 3), torch.zeros(3), torch.ones(3)))
    for _ in range(2):
        statistics = torch._lazy_clone(mean), torch._lazy_clone(variance)
        torch.batch_norm(x, None, None, *statistics, True, 0.1, 1e-5, False)
        torch.batch_norm_update_stats(x, *(torch._lazy_clone(t) for t in (mean, variance)), 0.1)
        assert statistics[0].tolist() == pytest.approx([0.45, 0.55, 0.65])
        assert mean.tolist() == [0, 0, 0] and variance.tolist() == [1, 1, 1]


def test_compressed_tensors_take_new_members_in_place(device):
    a = torch.eye(3).to_sparse_csr().to(device)
    a.add_(torch.ones(3, 3).to_sparse_csr().to(device))
    assert a._nnz() == 9
    torch.testing.assert_close(a.to_dense().cpu(), torch.eye(3) + 1)


def test_the_new_precision_settings_do_not_disturb_other_operators(device):
    before = torch.backends.mkldnn.matmul.fp32_precision
    torch.backends.mkldnn.matmul.fp32_precision = "bf16"
    try:
        assert torch.sin(torch.zeros(3, device=device)).tolist() == [0, 0, 0]
    finally:
        torch.backends.mkldnn.matmul.fp32_precision = before


def test_flags_are_what_they_were_when_the_call_was_made(device):
    x = torch.arange(3, device=device)
    torch.sqrt(x), x.double()
    torch.openreg.synchronize(device)
    torch.set_default_dtype(torch.float64)
    try:
        wide = torch.sqrt(x)
    finally:
        torch.set_default_dtype(torch.float32)
    assert wide.dtype == torch.float64
    torch.testing.assert_close(wide.cpu(), torch.arange(3).double().sqrt())
    torch.openreg.synchronize(device)
    assert torch.get_default_dtype() == torch.float32


def test_a_precision_that_was_inherited_stays_so(device):
    a = torch.ones(8, 8, device=device)
    a @ a
    torch.openreg.synchronize(device)
    with torch.openreg.schedule("lazy"), torch.backends.__allow_nonbracketed_mutation():  # torch's test utilities freeze the flags
        try:
            torch.backends.fp32_precision = "bf16"
            product = a @ a
            torch.backends.fp32_precision = "ieee"
            assert product.tolist() == [[8.0] * 8] * 8
            torch.backends.fp32_precision = "bf16"
            assert torch.backends.mkldnn.matmul.fp32_precision == "bf16"
        finally:
            torch.backends.fp32_precision = "none"


def test_a_convolution_runs_with_the_library_that_was_on_when_it_was_called(device):
    x, weight = torch.randn(4, 64, 16, 16), torch.randn(64, 64, 3, 3)
    torch.conv2d(x.to(device), weight.to(device))
    operands = x.to(device), weight.to(device)
    with torch.openreg.schedule("lazy"):
        with torch.backends.mkldnn.flags(enabled=False):
            want = torch.conv2d(x, weight)
            found = torch.conv2d(*operands)
        assert torch.equal(found.cpu(), want)
        assert torch._C._get_mkldnn_enabled()


def test_work_that_was_skipped_for_another_threads_error_raises_too(device):
    """Two threads share a stream on which a task fails: neither may take garbage for its result."""
    stream = torch.openreg.Stream(device)
    x = torch.full((1,), 3.0, device=device)
    table = torch.ones(2, 3, device=device)
    for column in (0, 1):
        table.gather(1, torch.tensor([[column]], device=device))
    torch.openreg.synchronize(device)
    for _ in range(5):
        outcomes = []
        start = threading.Barrier(2)

        def read(fails):
            with torch.openreg.stream(stream):
                start.wait()
                try:
                    if fails:
                        torch.openreg._sleep(2_000_000)
                        table.gather(1, torch.tensor([[9]], device=device))
                        stream.synchronize()
                    else:
                        outcomes.append(x.item())
                except torch.AcceleratorError:
                    pass

        threads = [threading.Thread(target=read, args=(fails,)) for fails in (True, False)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        try:
            stream.synchronize()
        except torch.AcceleratorError:
            pass
        assert all(value == 3.0 for value in outcomes), outcomes


# backward(device) notes in `seen` how many threads its hook has.
SEEN_BY_BACKWARD = """
    import threading, torch, torch_openreg
    seen = []
    def backward(device):
        x = torch.ones(3, device=device, requires_grad=True)
        y = x * 2
        y.register_hook(lambda grad: (grad * 2, seen.append(torch.get_num_threads()))[0])
        y.sum().backward()
"""


def test_backward_launches_with_the_callers_number_of_threads(device, python):
    """The engine keeps its device threads: one that started with two threads follows a later change."""
    python(
        SEEN_BY_BACKWARD,
        f"""
        for count in (2, 1, 2):
            torch.set_num_threads(count)
            backward("{device}")
        assert seen == [2, 1, 2], seen
        torch.set_num_threads(1)
        backward("openreg:{1 - device.index}")
        assert seen[-1] == 1, "the other device's thread started with the first backward"
        """,
    )


def test_a_backward_does_not_take_over_what_another_thread_set(device, python):
    """As the threads that pin a data loader's batches do, which set their number to one."""
    python(
        SEEN_BY_BACKWARD,
        f"""
        torch.set_num_threads(2)
        backward("{device}")
        other = threading.Thread(target=torch.set_num_threads, args=(1,))
        other.start()
        other.join()
        backward("{device}")
        assert seen == [2, 2], seen
        """,
    )
