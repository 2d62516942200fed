"""The connectionist temporal classification loss: both forms of lengths, targets on the CPU and on the device, gradients, against
the CPU.

Needs the built extension.
"""

import pytest
import torch
import torch.nn.functional as F
from parity import assert_like, check

import torch_openreg  # noqa: F401  (registers the device)

TARGETS = torch.tensor([[1, 2, 2, 3], [3, 1, 0, 0], [2, 3, 1, 0]])
LENGTHS = {"numbers": ((8, 6, 7), (4, 2, 3)), "tensors": (torch.tensor([8, 6, 7]), torch.tensor([4, 2, 3]))}


def loss(logits, targets, input_lengths, target_lengths, **options):
    leaf = logits.detach().requires_grad_()
    result = F.ctc_loss(leaf.log_softmax(-1), targets, input_lengths, target_lengths, **options)
    return result.detach(), *torch.autograd.grad(result.sum(), leaf)


@pytest.mark.parametrize("lengths", LENGTHS)
@pytest.mark.parametrize("form", ["padded", "joined"])
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_values_and_gradients(lengths, form, reduction, device):
    inputs, outputs = LENGTHS[lengths]
    targets = TARGETS if form == "padded" else torch.cat([row[:n] for row, n in zip(TARGETS, (4, 2, 3))])
    logits = torch.randn(8, 3, 4)
    for dtype in (torch.float32, torch.float64):
        for kind in (torch.int64, torch.int32):
            check(loss, logits.to(dtype), targets.to(kind), inputs, outputs, device=device, rtol=1e-4, atol=1e-5, reduction=reduction)
    for zero_infinity in (False, True):  # the first target is too long for its input
        check(
            loss, logits, targets, (2, 6, 7), (4, 2, 3), device=device, rtol=1e-4, atol=1e-5, reduction=reduction, zero_infinity=zero_infinity
        )
    check(loss, logits, targets, (8, 6, 7), (4, 2, 3), device=device, rtol=1e-4, atol=1e-5, reduction=reduction, blank=3)
    check(loss, logits, targets, (8, 6, 7), (4, 0, 3) if form == "padded" else (4, 2, 3), device=device, rtol=1e-4, atol=1e-5)


def test_lengths_and_targets_may_stay_on_the_cpu(device):
    logits = torch.randn(8, 3, 4)
    inputs, outputs = LENGTHS["tensors"]
    want = loss(logits, TARGETS, inputs, outputs)
    assert_like(loss(logits.to(device), TARGETS.to(device), inputs, outputs), want, device, rtol=1e-4, atol=1e-5)
    assert_like(loss(logits.to(device), TARGETS, inputs, outputs), want, device, rtol=1e-4, atol=1e-5)
    assert_like(loss(logits.to(device), TARGETS.to(device), inputs.to(device), outputs), want, device, rtol=1e-4, atol=1e-5)


def test_one_sequence_without_a_batch(device):
    check(loss, torch.randn(8, 4), TARGETS[0], torch.tensor(8), torch.tensor(4), device=device, rtol=1e-4, atol=1e-5)
    check(loss, torch.randn(8, 4), TARGETS[0], (8,), (4,), device=device, rtol=1e-4, atol=1e-5)


def test_wrong_operands_are_the_cpus_errors(device):
    logits = torch.randn(8, 3, 4)
    for targets, inputs, outputs, options in (
        (TARGETS, (9, 6, 7), (4, 2, 3), {}),
        (TARGETS, (8, 6), (4, 2, 3), {}),
        (TARGETS, (8, 6, 7), (5, 2, 3), {}),
        (TARGETS.float(), (8, 6, 7), (4, 2, 3), {}),
        (TARGETS, (8, 6, 7), (4, 2, 3), {"blank": 4}),
        (TARGETS[:2], (8, 6, 7), (4, 2, 3), {}),
        (TARGETS, (8, 6, 7), (4, 2, -3), {}),
    ):
        check(loss, logits, targets, inputs, outputs, device=device, message=False, **options)
