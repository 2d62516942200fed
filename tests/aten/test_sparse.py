"""Sparse tensors: construction, components, conversion and arithmetic in the COO and compressed layouts, against the CPU.

Needs the built extension.
"""

import copy
import io
import pickle

import pytest
import torch
from parity import assert_like, check, check_gradients

import torch_openreg  # noqa: F401  (registers the device)

INDICES = torch.tensor([[0, 1, 1, 2], [2, 0, 2, 0]])
VALUES = torch.tensor([3.0, 4.0, 5.0, 6.0])
COMPRESSED = {
    torch.sparse_csr: lambda d: d.to_sparse_csr(),
    torch.sparse_csc: lambda d: d.to_sparse_csc(),
    torch.sparse_bsr: lambda d: d.to_sparse_bsr((2, 2)),
    torch.sparse_bsc: lambda d: d.to_sparse_bsc((2, 2)),
}


def dense():
    return torch.tensor([[0.0, 1, 0, 2], [0, 0, 3, 0], [4, 0, 0, 0], [0, 5, 0, 6]])


def test_coo_tensors_are_made_and_taken_apart(device):
    for make in (
        lambda i, v: torch.sparse_coo_tensor(i, v, (3, 3), device=i.device),
        lambda i, v: torch.sparse_coo_tensor(i, v),
        lambda i, v: torch.sparse_coo_tensor(i, v, (3, 4), check_invariants=True),
        lambda i, v: torch.sparse_coo_tensor(i, v[:, None].expand(4, 2), (3, 3, 2)),
        lambda i, v: torch.sparse_coo_tensor(i, v, (3, 3)).coalesce(),
    ):
        x = check(make, INDICES, VALUES, device=device, strides=False)
        assert x.layout == torch.sparse_coo and x.device == device
        check(lambda i, v: make(i, v).coalesce().indices(), INDICES, VALUES, device=device, strides=False)
        check(lambda i, v: make(i, v).coalesce().values(), INDICES, VALUES, device=device, strides=False)
        check(lambda i, v: make(i, v).to_dense(), INDICES, VALUES, device=device)
        check(lambda i, v: (make(i, v)._nnz(), make(i, v).sparse_dim(), make(i, v).dense_dim()), INDICES, VALUES, device=device)


def test_duplicates_are_summed_by_coalesce(device):
    indices = torch.tensor([[0, 0, 1, 0], [1, 1, 0, 1]])
    x = torch.sparse_coo_tensor(indices, VALUES, (2, 2)).to(device)
    assert not x.is_coalesced()
    y = x.coalesce()
    assert y.is_coalesced() and y._nnz() == 2 and y.values().tolist() == [13, 5]


def test_an_empty_tensor_and_one_of_zeros(device):
    assert torch.sparse_coo_tensor((3, 4), device=device)._nnz() == 0
    x = torch.zeros(3, 4, device=device, layout=torch.sparse_coo)
    assert x.device == device and x.to_dense().eq(0).all()
    assert torch.zeros(3, 3, device=device).to_sparse()._nnz() == 0


@pytest.mark.parametrize("layout", COMPRESSED, ids=str)
def test_compressed_tensors_are_made_and_taken_apart(layout, device):
    convert = COMPRESSED[layout]
    x = check(lambda d: convert(d), dense(), device=device, strides=False)
    assert x.layout == layout and x.device == device
    check(lambda d: convert(d).to_dense(), dense(), device=device)
    check(lambda d: convert(d).values(), dense(), device=device, strides=False)
    names = ("crow_indices", "col_indices") if layout in (torch.sparse_csr, torch.sparse_bsr) else ("ccol_indices", "row_indices")
    parts = [check(lambda d: getattr(convert(d), name)(), dense(), device=device, strides=False) for name in names]
    again = torch.sparse_compressed_tensor(*parts, x.values(), x.shape, layout=layout)
    assert again.device == device and torch.equal(again.to_dense().cpu(), dense())


def test_layouts_convert_into_each_other(device):
    for function in (
        lambda d: d.to_sparse().to_sparse_csr().to_dense(),
        lambda d: d.to_sparse_csr().to_sparse().to_dense(),
        lambda d: d.to_sparse_csr().to_sparse_csc().to_dense(),
        lambda d: d.to_sparse_csr().to_sparse_bsr((2, 2)).to_dense(),
        lambda d: d.to_sparse(1).to_dense(),
    ):
        check(function, dense(), device=device)


@pytest.mark.parametrize("convert", [lambda d: d.to_sparse(), *COMPRESSED.values()])
def test_sparse_tensors_cross_to_the_host_and_between_devices(convert, device):
    x = convert(dense())
    there = x.to(device)
    assert_like(there, x, device, strides=False)
    other = torch.device("openreg", 1 - device.index)
    assert_like(there.to(other), x, other, strides=False)
    assert torch.equal(there.cpu().to_dense(), dense())
    assert_like(there.to(torch.float64), x.to(torch.float64), device, strides=False)
    assert_like(there.clone(), x, device, strides=False)


ARITHMETIC = {
    "times number": lambda s, d: s * 2,
    "plus sparse": lambda s, d: s + s,
    "minus sparse": lambda s, d: s - s * 0.5,
    "times sparse": lambda s, d: s * s,
    "dense plus": lambda s, d: d + s,
    "matrix product": lambda s, d: s @ d,
    "sparse mm": lambda s, d: torch.sparse.mm(s, d),
    "sparse mm sparse": lambda s, d: torch.sparse.mm(s, s).to_dense(),
    "matrix vector": lambda s, d: torch.mv(s, d[0]),
    "addmm": lambda s, d: torch.sparse.addmm(d, s, d),
    "sum": lambda s, d: torch.sparse.sum(s),
    "sum of rows": lambda s, d: torch.sparse.sum(s, 0).to_dense(),
    "softmax": lambda s, d: torch.sparse.softmax(s, 1),
    "transposed": lambda s, d: s.t().to_dense(),
    "relu": lambda s, d: torch.relu(-s),
    "sqrt": lambda s, d: s.sqrt(),
    "neg": lambda s, d: -s,
    "selected": lambda s, d: s[1].to_dense(),
    "index_select": lambda s, d: s.index_select(0, torch.tensor([2, 0], device=d.device)).to_dense(),
    "masked": lambda s, d: d.sparse_mask(s.coalesce()),
    "norm": lambda s, d: torch.norm(s),
    "cat": lambda s, d: torch.cat([s, s]).to_dense(),
    "unsqueeze": lambda s, d: s.unsqueeze(0).to_dense(),
    "in place": lambda s, d: s.clone().mul_(3).add_(s),
    "dense in place": lambda s, d: d.clone().add_(s),
    "zero_": lambda s, d: s.clone().zero_().to_dense(),
    "half": lambda s, d: s.half(),
}


@pytest.mark.parametrize("name", ARITHMETIC)
def test_coo_arithmetic(name, device):
    for _ in range(2):
        check(lambda d: ARITHMETIC[name](d.to_sparse(), d), dense(), device=device, strides=False, rtol=1e-5, atol=1e-6)


CSR_ARITHMETIC = {name: ARITHMETIC[name] for name in (
    "times number", "plus sparse", "matrix product", "sparse mm", "matrix vector", "addmm", "relu", "sqrt", "neg", "transposed", "selected"
)}


@pytest.mark.parametrize("name", CSR_ARITHMETIC)
def test_csr_arithmetic(name, device):
    check(lambda d: CSR_ARITHMETIC[name](d.to_sparse_csr(), d), dense(), device=device, strides=False, rtol=1e-5, atol=1e-6)


def test_gradients_pass_sparse_products(device):
    d = dense().requires_grad_()
    check_gradients(lambda d: torch.sparse.mm(d.to_sparse(), torch.ones(4, 2, device=d.device)), d, device=device)
    check_gradients(lambda d: d.to_sparse().to_dense() * 2, d, device=device)
    weight = torch.randn(5, 3, requires_grad=True)
    sides = []
    for place in ("cpu", device):
        w = weight.detach().to(place).requires_grad_()
        torch.nn.functional.embedding(torch.tensor([1, 3, 1], device=place), w, sparse=True).sum().backward()
        assert w.grad.layout == torch.sparse_coo and w.grad.device == torch.device(place)
        sides.append(w.grad.to_dense().cpu())
    assert torch.equal(*sides)


def test_a_sparse_embedding_trains(device):
    embedding = torch.nn.Embedding(6, 3, sparse=True, device=device)
    optimizer = torch.optim.SparseAdam(embedding.parameters(), lr=0.1)
    before = embedding.weight.detach().clone()
    embedding(torch.tensor([1, 4], device=device)).pow(2).sum().backward()
    optimizer.step()
    changed = (embedding.weight != before).any(1)
    assert changed.tolist() == [False, True, False, False, True, False]


def test_sparse_tensors_print_and_travel(device):
    x = dense().to_sparse().to(device)
    assert "layout=torch.sparse_coo" in repr(x) and str(device) in repr(x) and "nnz=6" in repr(x)
    assert "sparse_csr" in repr(dense().to_sparse_csr().to(device))
    buffer = io.BytesIO()
    torch.save(x, buffer)
    buffer.seek(0)
    for twin in (copy.deepcopy(x), pickle.loads(pickle.dumps(x)), torch.load(buffer)):
        assert twin.device == device and torch.equal(twin.to_dense().cpu(), dense())


def test_wrong_components_are_the_cpus_errors(device):
    def outside(i, v):
        return torch.sparse_coo_tensor(i, v, (2, 2), check_invariants=True)

    check(outside, INDICES, VALUES, device=device, message=False)
    check(lambda i, v: torch.sparse_coo_tensor(i, v[:2], (3, 3), check_invariants=True), INDICES, VALUES, device=device, message=False)
    with pytest.raises(RuntimeError):
        torch.sparse_coo_tensor(INDICES.to(device), VALUES.to(torch.device("openreg", 1 - device.index)), (3, 3), check_invariants=True)
    torch.openreg.synchronize(device)


@pytest.mark.parametrize("layout", [torch.sparse_coo, torch.sparse_csr, torch.sparse_csc])
def test_in_place_operators_write_where_the_values_lie(layout, device):
    def call(dense):
        sparse = dense.to_sparse(layout=layout)
        alias, values = sparse.detach(), sparse._values() if layout == torch.sparse_coo else sparse.values()
        sparse.neg_()
        sparse.mul_(3)
        return alias.to_dense(), values, sparse.to_dense()

    check(call, torch.eye(3) * 2, device=device)
