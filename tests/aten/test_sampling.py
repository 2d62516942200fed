"""Operators that resample grids: grid_sample, affine_grid, interpolate, fold and unfold, pooling with indices and random regions,
against the CPU.

Needs the built extension.
"""

import pytest
import torch
import torch.nn.functional as F
from parity import check, check_gradients

import torch_openreg  # noqa: F401  (registers the device)


@pytest.mark.parametrize("mode", ["bilinear", "nearest", "bicubic"])
@pytest.mark.parametrize("padding", ["zeros", "border", "reflection"])
@pytest.mark.parametrize("corners", [False, True])
def test_grid_sample(mode, padding, corners, device):
    x, grid = torch.randn(2, 3, 5, 4, requires_grad=True), (torch.rand(2, 3, 6, 2) * 2.4 - 1.2).requires_grad_()
    options = {"mode": mode, "padding_mode": padding, "align_corners": corners}
    check(F.grid_sample, x.detach(), grid.detach(), device=device, rtol=1e-4, atol=1e-5, **options)
    check_gradients(F.grid_sample, x, grid, device=device, rtol=1e-3, atol=1e-4, **options)
    check(F.grid_sample, x.detach().double().contiguous(memory_format=torch.channels_last), grid.detach().double(), device=device, **options)
    if mode != "bicubic":
        x, grid = torch.randn(1, 2, 3, 4, 3, requires_grad=True), (torch.rand(1, 2, 3, 2, 3) * 2.4 - 1.2).requires_grad_()
        check_gradients(F.grid_sample, x, grid, device=device, rtol=1e-3, atol=1e-4, **options)


def test_affine_grid(device):
    for size, theta in (((2, 3, 4, 5), (2, 2, 3)), ((2, 3, 2, 4, 5), (2, 3, 4))):
        for corners in (False, True):
            check_gradients(lambda t: F.affine_grid(t, size, align_corners=corners), torch.randn(theta, requires_grad=True), device=device, rtol=1e-4, atol=1e-5)


INTERPOLATIONS = [
    *[("nearest", dims, {}) for dims in (1, 2, 3)],
    *[("nearest-exact", dims, {}) for dims in (1, 2, 3)],
    *[("area", dims, {}) for dims in (1, 2, 3)],
    *[("linear", 1, {"align_corners": corners}) for corners in (False, True)],
    *[(mode, 2, {"align_corners": corners, "antialias": smooth}) for mode in ("bilinear", "bicubic") for corners in (False, True) for smooth in (False, True)],
    *[("trilinear", 3, {"align_corners": corners}) for corners in (False, True)],
]


@pytest.mark.parametrize("mode, dims, options", INTERPOLATIONS, ids=lambda value: str(value))
def test_interpolate(mode, dims, options, device):
    for target in ({"size": (3, 7, 4)[:dims]}, {"scale_factor": 2.0}, {"scale_factor": 0.6}, {"scale_factor": 1.3, "recompute_scale_factor": True}):
        arguments = {"mode": mode, **options, **target}
        check(F.interpolate, torch.randn(2, 3, *(6, 5, 4)[:dims]), device=device, rtol=1e-4, atol=1e-5, **arguments)
        check_gradients(F.interpolate, torch.randn(2, 3, *(6, 5, 4)[:dims], requires_grad=True), device=device, rtol=1e-4, atol=1e-4, **arguments)
    arguments = {"mode": mode, **options, "size": (3, 7, 4)[:dims]}
    for dtype in (torch.float64, torch.bfloat16, torch.float16, torch.uint8):
        check(F.interpolate, (torch.randn(2, 3, *(6, 5, 4)[:dims]) * 9).abs().to(dtype), device=device, message=False, **arguments)
    check(F.interpolate, torch.randn(0, 3, *(6, 5, 4)[:dims]), device=device, message=False, **arguments)
    if dims > 1:
        last = torch.channels_last if dims == 2 else torch.channels_last_3d
        check(F.interpolate, torch.randn(2, 8, *(6, 5, 4)[:dims]).to(memory_format=last), device=device, rtol=1e-4, atol=1e-5, **arguments)


def test_fold_and_unfold(device):
    options = {"kernel_size": (2, 3), "dilation": (2, 1), "padding": 1, "stride": (1, 2)}
    check_gradients(F.unfold, torch.randn(2, 3, 6, 7, requires_grad=True), device=device, rtol=1e-4, atol=1e-5, **options)
    columns = F.unfold(torch.randn(2, 3, 6, 7), **options)
    check_gradients(F.fold, columns.requires_grad_(), device=device, rtol=1e-4, atol=1e-5, output_size=(6, 7), **options)
    check(F.fold, columns.detach()[0], device=device, rtol=1e-4, atol=1e-5, output_size=(6, 7), **options)
    check(F.unfold, torch.randn(2, 3, 6, 7, dtype=torch.complex64), device=device, **options)
    check(F.fold, columns.detach()[:, 1:], device=device, output_size=(6, 7), **options)
    check(F.fold, columns.detach(), device=device, output_size=(6, 8), **options)


POOLS = {
    "max 1": lambda x: F.max_pool1d(x[..., 0], 2, 2, padding=1, return_indices=True),
    "max 2": lambda x: F.max_pool2d(x, 2, 1, dilation=2, return_indices=True),
    "max 2 ceil": lambda x: F.max_pool2d(x, 3, 2, ceil_mode=True),
    "max 3": lambda x: F.max_pool3d(x, 2, 2, return_indices=True),
    "average 2": lambda x: F.avg_pool2d(x, 3, 2, padding=1, count_include_pad=False, ceil_mode=True, divisor_override=2),
    "average 3": lambda x: F.avg_pool3d(x, 2),
    "power 2": lambda x: F.lp_pool2d(x, 2, 2),
    "adaptive max 2": lambda x: F.adaptive_max_pool2d(x, (3, 2), return_indices=True),
    "adaptive average 2": lambda x: F.adaptive_avg_pool2d(x, (3, None)),
    "adaptive average 3": lambda x: F.adaptive_avg_pool3d(x, 2),
    "unpooled": lambda x: F.max_unpool2d(*F.max_pool2d(x, 2, return_indices=True), 2, output_size=x.shape[-2:]),
    "regions 2": lambda x: F.fractional_max_pool2d(x, 2, (3, 2), _random_samples=torch.full((*x.shape[:2], 2), 0.3, device=x.device), return_indices=True),
    "regions 3": lambda x: F.fractional_max_pool3d(x[None], 2, (1, 2, 2), _random_samples=torch.full((1, x.shape[0], 3), 0.3, device=x.device)),
}


@pytest.mark.parametrize("name", POOLS)
def test_pools(name, device):
    x = torch.randn(2, 3, 6, 5)
    check(POOLS[name], x, device=device, rtol=1e-4, atol=1e-5)
    check(POOLS[name], x.to(memory_format=torch.channels_last), device=device, rtol=1e-4, atol=1e-5)
    check_gradients(lambda x: [t for t in torch.utils._pytree.tree_leaves(POOLS[name](x)) if t.is_floating_point()], x.requires_grad_(), device=device)
    check(POOLS[name], torch.randn(0, 3, 6, 5), device=device, message=False)
    check(POOLS[name], torch.randn(2, 3, 0, 5), device=device, message=False)


def test_random_regions_follow_the_seed(device):
    x = torch.randn(2, 3, 8, 8, device=device)
    torch.manual_seed(1)
    first = F.fractional_max_pool2d(x, 2, output_ratio=(0.6, 0.6))
    torch.manual_seed(1)
    assert torch.equal(F.fractional_max_pool2d(x, 2, output_ratio=(0.6, 0.6)), first) and first.shape == (2, 3, 4, 4)
