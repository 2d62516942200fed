"""Sparse tensors of every layout: constructors, conversion between all pairs, copies between devices, hybrid and batched
tensors, tensors without values, printing and saving, against the CPU.

Needs the built extension.
"""

import copy
import io
import itertools
import pickle

import pytest
import torch
from parity import assert_like, check

import torch_openreg  # noqa: F401  (registers the device)


def dense():
    return torch.tensor([[0.0, 1, 0, 2], [0, 0, 3, 0], [4, 0, 0, 0], [0, 5, 0, 6]])


CONVERT = {
    "coo": lambda d: d.to_sparse(),
    "csr": lambda d: d.to_sparse_csr(),
    "csc": lambda d: d.to_sparse_csc(),
    "bsr": lambda d: d.to_sparse_bsr((2, 2)),
    "bsc": lambda d: d.to_sparse_bsc((2, 2)),
}
COMPRESSED = ["csr", "csc", "bsr", "bsc"]
LAYOUT = {
    "coo": torch.sparse_coo,
    "csr": torch.sparse_csr,
    "csc": torch.sparse_csc,
    "bsr": torch.sparse_bsr,
    "bsc": torch.sparse_bsc,
}
UNSAFE = {
    "csr": torch.ops.aten._sparse_csr_tensor_unsafe,
    "csc": torch.ops.aten._sparse_csc_tensor_unsafe,
    "bsr": torch.ops.aten._sparse_bsr_tensor_unsafe,
    "bsc": torch.ops.aten._sparse_bsc_tensor_unsafe,
}
KINDS = {
    "plain": dense,
    "without values": lambda: torch.zeros(4, 4),
    "without elements": lambda: torch.zeros(0, 4),
    "hybrid": lambda: torch.stack([dense(), dense() * 2], -1),
    "batched": lambda: torch.stack([dense(), dense() * 2]),
    "complex": lambda: dense().to(torch.complex64) * (1 + 2j),
    "bool": lambda: dense().bool(),
    "int8": lambda: dense().to(torch.int8),
    "half": lambda: dense().half(),
    "double": lambda: dense().double(),
}


def make(layout, kind):
    """The kind's tensor in a layout, on the CPU; skips what the layout cannot hold."""
    d = KINDS[kind]()
    if kind == "hybrid":
        if layout == "coo":
            return d.to_sparse(2)
        blocks = {"blocksize": (2, 2)} if layout.startswith("bs") else {}
        return d.to_sparse(layout=LAYOUT[layout], dense_dim=1, **blocks)
    return CONVERT[layout](d)


def parts(x):
    if x.layout == torch.sparse_coo:
        return x._indices(), x._values()
    if x.layout in (torch.sparse_csr, torch.sparse_bsr):
        return x.crow_indices(), x.col_indices(), x.values()
    return x.ccol_indices(), x.row_indices(), x.values()


def facts(x):
    return parts(x), x._nnz(), x.sparse_dim(), x.dense_dim(), x.is_sparse, x.is_sparse_csr


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("layout", CONVERT)
def test_every_kind_of_sparse_tensor_is_made_copied_and_made_dense(layout, kind, device):
    x = make(layout, kind)
    other = torch.device("openreg", 1 - device.index)
    check(facts, x, device=device)
    check(lambda x: x.to_dense(), x, device=device)
    there = x.to(device)
    for target in (other, "cpu", device):
        for move in (lambda: there.to(target), lambda: there.to(target, copy=True), lambda: torch.empty_like(there, device=target).copy_(there)):
            assert_like(move(), x, target)
            assert_like(parts(move()), parts(x), target)
    if kind == "plain":
        check(lambda x: make(layout, kind).to(x.device, torch.float64), x, device=device)


@pytest.mark.parametrize("source, target", list(itertools.product(CONVERT, CONVERT)))
def test_each_layout_converts_into_each_other(source, target, device):
    for kind in ("plain", "without values", "hybrid", "batched", "complex"):
        blocks = {"blocksize": (2, 2)} if target.startswith("bs") else {}
        check(lambda x: x.to_sparse(layout=LAYOUT[target], **blocks), make(source, kind), device=device)


@pytest.mark.parametrize("layout", COMPRESSED)
@pytest.mark.parametrize("unsafe", [False, True], ids=["checked", "unsafe"])
def test_compressed_constructors(layout, unsafe, device):
    x = make(layout, "plain")
    first, second, values = parts(x)
    plain = UNSAFE[layout] if unsafe else getattr(torch, f"sparse_{layout}_tensor")
    function = lambda *p, **options: plain(*p, **options, device=p[0].device)  # noqa: E731
    check(lambda *p: facts(function(*p, size=x.shape)), first, second, values, device=device)
    check(lambda *p: facts(function(*p, size=x.shape, dtype=torch.float64)), first, second, values, device=device)
    check(lambda *p: facts(function(*p, size=x.shape)), first.int(), second.int(), values, device=device)
    check(lambda *p: plain(first.to(p[0].device), *p[1:], size=x.shape, device=p[0].device), first, second, values, device=device)
    if not unsafe:
        check(lambda *p: function(*p, size=x.shape, requires_grad=True), first, second, values, device=device)
        check(lambda *p: plain(*p), first, second, values, device=device)
        check(lambda *p: function(*p, size=x.shape, check_invariants=True), first, second, values, device=device)
        for wrong in ((first + 1, second, values), (first, second + 7, values), (first, second, values[1:]), (first[1:], second, values)):
            check(lambda *p: function(*p, size=x.shape, check_invariants=True), *wrong, device=device)


def test_coo_constructors(device):
    indices, values = torch.tensor([[0, 1, 1, 2], [2, 0, 2, 0]]), torch.tensor([3.0, 4, 5, 6])
    for function in (
        lambda i, v: torch.sparse_coo_tensor(i, v, (3, 3), is_coalesced=True),
        lambda i, v: torch.sparse_coo_tensor(i, v, (3, 3), dtype=torch.float64, requires_grad=True),
        lambda i, v: torch.sparse_coo_tensor(i.int(), v.tolist(), device=i.device),
        lambda i, v: torch.sparse_coo_tensor(i.tolist(), v, (3, 3)),
        lambda i, v: torch.sparse_coo_tensor(i, v, (3, 3)).is_coalesced(),
        lambda i, v: torch._sparse_coo_tensor_unsafe(i, v, (3, 3)),
        lambda i, v: torch.sparse_coo_tensor(i, v, (2, 3), check_invariants=True),
        lambda i, v: torch.sparse_coo_tensor(i, v, (2, 3)),
        lambda i, v: torch.sparse_coo_tensor(i - 1, v),
        lambda i, v: torch.sparse_coo_tensor(i, v[1:], (3, 3)),
        lambda i, v: torch.sparse_coo_tensor(i.float(), v),
        lambda i, v: torch.sparse_coo_tensor(i, v, (3, 3), is_coalesced=True, check_invariants=True),
        lambda i, v: torch.sparse_coo_tensor(i.flip(1), v, (3, 3), is_coalesced=True, check_invariants=True),
        lambda i, v: torch.sparse_coo_tensor(torch.zeros(2, 0, dtype=torch.long, device=i.device), v[:0], (2, 2)),
        lambda i, v: torch.sparse_coo_tensor(torch.zeros(0, 4, dtype=torch.long, device=i.device), v).to_dense(),
        lambda i, v: torch.sparse_coo_tensor((2, 3), device=i.device, dtype=torch.int32),
        lambda i, v: v.new_zeros(2, 3).to_sparse().new_empty((5, 5)),
        lambda i, v: torch.sparse_coo_tensor(i, v).new(torch.Size([2, 2])),
        lambda i, v: torch.eye(3, device=i.device).to_sparse(),
        lambda i, v: torch.zeros(2, 2, layout=torch.sparse_coo, device=i.device),
        lambda i, v: torch.zeros(2, 2, layout=torch.sparse_csr, device=i.device),
        lambda i, v: torch.zeros_like(torch.sparse_coo_tensor(i, v)),
        lambda i, v: torch.sparse_coo_tensor(i, v).sparse_resize_((4, 4), 2, 0),
        lambda i, v: torch.sparse_coo_tensor(i, v).sparse_resize_and_clear_((4, 4, 2), 2, 1),
        lambda i, v: torch.sparse_coo_tensor(i, v).coalesce().indices(),
        lambda i, v: torch.sparse_coo_tensor(i, v).indices(),
        lambda i, v: torch.sparse.spdiags(torch.arange(6.0).reshape(2, 3), torch.tensor([0, 1]), (3, 3)).to(i.device),
    ):
        check(function, indices, values, device=device)


@pytest.mark.parametrize("layout", COMPRESSED)
def test_invariants_are_checked_by_the_context_manager(layout, device):
    x = make(layout, "plain").to(device)
    first, second, values = parts(x)
    with torch.sparse.check_sparse_tensor_invariants():
        with pytest.raises(RuntimeError):
            torch.sparse_compressed_tensor(first + 1, second, values, x.shape, layout=x.layout)
    torch.sparse_compressed_tensor(first + 1, second, values, x.shape, layout=x.layout)


@pytest.mark.parametrize("kind", ["plain", "without values", "hybrid", "batched"])
@pytest.mark.parametrize("layout", CONVERT)
def test_sparse_tensors_print_and_travel(layout, kind, device):
    x = make(layout, kind)
    there = x.to(device)
    assert "".join(repr(there).replace(f"device='{device}',", "").split()) == "".join(repr(x).split())
    buffer = io.BytesIO()
    torch.save(there, buffer)
    for twin in (
        copy.deepcopy(there),
        copy.copy(there),
        pickle.loads(pickle.dumps(there)),
        torch.load(io.BytesIO(buffer.getvalue())),
        torch.load(io.BytesIO(buffer.getvalue()), map_location=device),
    ):
        assert_like(twin, x, device)
        assert_like(parts(twin), parts(x), device)
    assert_like(torch.load(io.BytesIO(buffer.getvalue()), map_location="cpu"), x, "cpu")


@pytest.mark.parametrize("layout", CONVERT)
def test_sparse_parameters_and_buffers_move_with_their_module(layout, device):
    module = torch.nn.Module()
    module.register_buffer("mask", make(layout, "plain"))
    module.to(device)
    assert_like(module.mask, make(layout, "plain"), device)
    assert_like(module.state_dict()["mask"], make(layout, "plain"), device)
    assert_like(module.double().mask, make(layout, "double"), device)
    assert_like(module.cpu().mask, make(layout, "double"), "cpu")


def test_devices_are_not_mixed(device):
    other = torch.device("openreg", 1 - device.index)
    for layout in CONVERT:
        x = make(layout, "plain").to(device)
        for wrong in (dense().to(other), dense()):
            with pytest.raises(RuntimeError):
                torch.mm(x, wrong)
            if layout in ("coo", "csr"):
                with pytest.raises(RuntimeError):
                    torch.add(x, make(layout, "plain").to(wrong.device))
    with pytest.raises(RuntimeError):
        dense().to(device).sparse_mask(dense().to_sparse().to(other))
    torch.openreg.synchronize(device)
