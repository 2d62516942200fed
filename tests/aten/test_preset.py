"""Preset outputs: kernels without an out= overload write their results into the device's memory, and results that lie elsewhere are copied.

Needs the built extension.
"""

import pytest
import torch
import torch.nn.functional as F

import torch_openreg  # noqa: F401  (registers the device)


def copied(call):
    """Which operators copied a result, in the third call, and the result."""
    for _ in range(2):
        call()
    torch.openreg.synchronize()
    torch.openreg.reset_op_stats()
    result = call()
    torch.openreg.synchronize()
    return {name for name, counts in torch.openreg.op_stats().items() if counts["copied"]}, result


def on(device, *tensors):
    return [tensor.to(device) for tensor in tensors]


def attention(query, key, value):
    return F.scaled_dot_product_attention(query, key, value)


def embedding_gradient(grad, indices):
    return torch.ops.aten.embedding_dense_backward(grad, indices, 20, -1, False)


def norm_gradient(grad, x, weight):
    channels = torch.zeros(4, device=x.device), torch.ones(4, device=x.device)
    return torch.ops.aten.native_batch_norm_backward(grad, x, weight, *channels, *channels, True, 1e-5, [True, True, True])


CALLS = {
    "convolution": (lambda x, w: F.conv2d(x, w, padding=1), (torch.randn(2, 3, 8, 8), torch.randn(4, 3, 3, 3))),
    "attention": (attention, tuple(torch.randn(2, 4, 6, 8) for _ in range(3))),
    "embedding": (embedding_gradient, (torch.randn(5, 8), torch.tensor([1, 1, 3, 19, 0]))),
    "batch norm": (norm_gradient, (torch.randn(2, 4, 5, 5), torch.randn(2, 4, 5, 5), torch.randn(4))),
}


@pytest.mark.parametrize("name", CALLS)
def test_results_are_written_in_place_by_kernels_that_allocate_them(name):
    call, operands = CALLS[name]
    want = call(*operands)
    names, got = copied(lambda operands=on("openreg", *operands): call(*operands))
    assert not names
    torch.testing.assert_close(*([t.cpu() for t in r] if isinstance(r, tuple) else r.cpu() for r in (got, want)), rtol=1e-4, atol=1e-5)


def test_gradients_of_attention_are_right_wherever_they_lie():
    grads = []
    for device in ("cpu", "openreg"):
        for _ in range(3):
            generator = torch.Generator().manual_seed(0)
            operands = [torch.randn(2, 4, 6, 8, generator=generator).to(device).requires_grad_() for _ in range(3)]
            attention(*operands).square().sum().backward()
        grads.append([operand.grad.cpu() for operand in operands])
    torch.testing.assert_close(grads[1], grads[0], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("fill", [False, True])
def test_memory_is_filled_when_determinism_asks_for_it(fill):
    call, operands = CALLS["attention"]
    operands = on("openreg", *operands)
    want = copied(lambda: call(*operands))[1]
    torch.use_deterministic_algorithms(fill)
    try:
        assert torch.equal(copied(lambda: call(*operands))[1], want)
    finally:
        torch.use_deterministic_algorithms(False)


def test_a_result_that_another_result_was_allocated_for_is_not_lost():
    # The cell's gates and states have one size each: any of them may take any block.
    results = []
    for device in ("cpu", "openreg"):
        generator = torch.Generator().manual_seed(0)
        x, state, cell, w = (torch.randn(4, n, generator=generator).to(device) for n in (3, 5, 5, 8))
        weights = [torch.randn(size, generator=generator).to(device) for size in ((20, 3), (20, 5), (20,), (20,))]
        for _ in range(3):
            results.append([t.cpu() for t in torch.lstm_cell(x, (state, cell), *weights)])
    torch.testing.assert_close(results[-1], results[0])
