"""Mixed-precision training: it converges as float32's does, a scaler finds infinities without waiting, and a skipped step changes nothing.

Needs torch with torch_openreg installed.
"""

import pytest
import torch
import torch.nn.functional as F
import torch_openreg  # noqa: F401


def spiral(count, device):
    """Points of three arms of a spiral, and which arm each belongs to."""
    generator = torch.Generator().manual_seed(3)
    arm = torch.arange(count) % 3
    radius = torch.rand(count, generator=generator)
    angle = 4 * radius + arm * 2.1 + 0.1 * torch.randn(count, generator=generator)
    return torch.stack([radius * angle.cos(), radius * angle.sin()], 1).to(device), arm.to(device)


def train(device, dtype, steps=120):
    """The losses of a small classifier, trained in the type; float16 with a scaler."""
    torch.manual_seed(5)
    model = torch.nn.Sequential(torch.nn.Linear(2, 64), torch.nn.GELU(), torch.nn.LayerNorm(64), torch.nn.Linear(64, 64), torch.nn.GELU(), torch.nn.Linear(64, 3))
    model.to(device)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    scaler = torch.amp.GradScaler("openreg", enabled=dtype == torch.float16)
    x, y = spiral(300, device)
    losses = []
    for _ in range(steps):
        optimizer.zero_grad()
        with torch.autocast("openreg", dtype=dtype, enabled=dtype != torch.float32):
            loss = F.cross_entropy(model(x), y)
        scaler.scale(loss).backward()
        scaler.unscale_(optimizer)
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        scaler.step(optimizer)
        scaler.update()
        losses.append(loss.detach())
    return torch.stack(losses).cpu()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_mixed_precision_converges_as_float32_does(dtype, device):
    reference, mixed = train(device, torch.float32), train(device, dtype)
    assert reference[-1] < 0.2 * reference[0]
    assert (mixed[-20:].mean() - reference[-20:].mean()).abs() < 0.05
    assert (mixed[:10] - reference[:10]).abs().max() < 0.05


def test_a_scaled_step_waits_for_nothing(device):
    model = torch.nn.Linear(8, 8).to(device)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01, fused=True)
    scaler = torch.amp.GradScaler("openreg", init_scale=2.0**8)
    x = torch.randn(4, 8, device=device)

    def step():
        optimizer.zero_grad()
        with torch.autocast("openreg", dtype=torch.float16):
            loss = model(x).square().mean()
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()

    step()
    step()
    torch.openreg.reset_op_stats()
    torch.openreg.set_sync_debug_mode("error")
    try:
        step()
    finally:
        torch.openreg.set_sync_debug_mode("default")
    stats = torch.openreg.op_stats()
    assert [name for name, count in stats.items() if count["waited"]] == []
    assert "aten::_amp_foreach_non_finite_check_and_unscale_" in stats or "aten::_amp_update_scale_" in stats


@pytest.mark.parametrize("bad", [float("inf"), float("nan")])
@pytest.mark.parametrize("fused", [True, False], ids=["fused", "foreach"])
def test_a_step_with_bad_gradients_is_skipped_and_the_scale_shrinks(bad, fused, device):
    weight = torch.nn.Parameter(torch.ones(3, device=device))
    optimizer = torch.optim.AdamW([weight], lr=0.1, fused=fused)
    scaler = torch.amp.GradScaler("openreg", init_scale=8.0, growth_interval=2)
    for factor, expected in ((bad, 4.0), (1.0, 4.0), (1.0, 8.0)):
        before = weight.detach().clone()
        optimizer.zero_grad()
        scaler.scale((weight * factor).sum()).backward()
        scaler.step(optimizer)
        scaler.update()
        assert torch.equal(before, weight) == (factor is bad) and scaler.get_scale() == expected
    state = scaler.state_dict()
    fresh = torch.amp.GradScaler("openreg")
    fresh.load_state_dict(state)
    assert fresh.state_dict() == state
