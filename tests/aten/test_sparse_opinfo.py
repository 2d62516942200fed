"""Sparse samples of PyTorch's operator database: every operator and layout for which it has some, values, layouts, components and
gradients against the CPU, and its inputs that must raise.

Needs the built extension.
"""

import itertools

import pytest
import torch
from parity import outcome, place
from torch.testing._internal.common_methods_invocations import op_db
from torch.utils._pytree import tree_leaves, tree_map

import torch_openreg  # noqa: F401  (registers the device)

DEVICE = torch.device("openreg", 1)  # not the current one
LAYOUTS = {
    "coo": torch.sparse_coo,
    "csr": torch.sparse_csr,
    "csc": torch.sparse_csc,
    "bsr": torch.sparse_bsr,
    "bsc": torch.sparse_bsc,
}
SAMPLES = 12  # per operator, layout and dtype, taken evenly
RANDOM = {"randn_like", "rand_like", "randint_like"}
UNINITIALISED = {"empty_like"}


def samples(op, layout, dtype):
    """Samples of an operator, at most about SAMPLES; none where the database refuses the layout."""
    gradients = op.supports_autograd and (dtype.is_floating_point or dtype.is_complex)
    try:
        everything = list(op.sample_inputs_sparse(layout, "cpu", dtype, requires_grad=gradients))
    except Exception:
        return []
    return everything[:: max(1, len(everything) // SAMPLES)]


def same_place(tree, device):
    """Device copies of the tensors of a tree; a tensor that comes twice is one tensor there too."""
    copies = {}
    return tree_map(lambda x: copies.setdefault(id(x), place(x, device)) if isinstance(x, torch.Tensor) else place(x, device), tree)


def components(tensor):
    if tensor.layout == torch.sparse_coo:
        return [tensor._indices(), tensor._values()]
    if tensor.layout in (torch.sparse_csr, torch.sparse_bsr):
        return [tensor.crow_indices(), tensor.col_indices(), tensor.values()]
    if tensor.layout in (torch.sparse_csc, torch.sparse_bsc):
        return [tensor.ccol_indices(), tensor.row_indices(), tensor.values()]
    return [tensor]


def assert_same(got, want, values=True):
    leaves = tree_leaves(got), tree_leaves(want)
    assert len(leaves[0]) == len(leaves[1])
    for mine, theirs in zip(*leaves):
        if not isinstance(theirs, torch.Tensor):
            assert mine == theirs
            continue
        assert mine.device == DEVICE
        assert (mine.dtype, mine.shape, mine.layout, mine.requires_grad) == (theirs.dtype, theirs.shape, theirs.layout, theirs.requires_grad)
        if mine.layout == torch.sparse_coo:
            assert (mine.is_coalesced(), mine.sparse_dim(), mine._nnz()) == (theirs.is_coalesced(), theirs.sparse_dim(), theirs._nnz())
        for a, b in zip(components(mine.detach()), components(theirs.detach())):
            assert (a.device, a.dtype, a.shape) == (DEVICE, b.dtype, b.shape)
            if values:
                torch.testing.assert_close(a.cpu(), b, equal_nan=True)


def gradients_of(result, arguments):
    leaves = [x for x in tree_leaves(arguments) if isinstance(x, torch.Tensor) and x.requires_grad]
    outputs = [x for x in tree_leaves(result) if isinstance(x, torch.Tensor) and x.requires_grad]
    if not leaves or not outputs:
        return None
    return torch.autograd.grad(outputs, leaves, [x.detach() * 0.5 for x in outputs], allow_unused=True)


def compare(op, sample, message):
    """Runs one sample on both sides; returns whether the CPU could."""
    sides = []
    for device in ("cpu", DEVICE):
        arguments, options = same_place(((sample.input, *sample.args), sample.kwargs), device)
        options = {name: device if name == "device" else value for name, value in options.items()}
        torch.manual_seed(0)
        result, error = outcome(op.op, arguments, options)
        gradients, gradient_error = outcome(gradients_of, (result, (arguments, options)), {}) if error is None else (None, None)
        sides.append((result, error, gradients, gradient_error))
    (want, error, want_gradients, want_gradient_error), (got, my_error, got_gradients, my_gradient_error) = sides
    assert type(my_error) is type(error), f"{message}: {my_error!r} instead of {error!r}"
    assert type(my_gradient_error) is type(want_gradient_error), f"{message}: {my_gradient_error!r} instead of {want_gradient_error!r}"
    if error is None:
        assert_same(got, want, values=op.name not in RANDOM | UNINITIALISED)
        assert_same(got_gradients, want_gradients)
    return error is None


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("layout", LAYOUTS)
def test_samples_of_the_operator_database(layout):
    ran = set()
    for op in op_db:
        for dtype in (torch.float32, torch.complex64):
            if dtype not in op.dtypes:
                continue
            for number, sample in enumerate(samples(op, LAYOUTS[layout], dtype)):
                if compare(op, sample, f"{op.full_name}, {dtype}, sample {number}"):
                    ran.add(op.full_name)
    torch.openreg.synchronize(DEVICE)
    assert len(ran) >= 4, f"The database has sparse samples of {sorted(ran)} only."


@pytest.mark.filterwarnings("ignore")
def test_inputs_that_must_raise():
    raised = 0
    for op, layout in itertools.product(op_db, LAYOUTS.values()):
        try:
            cases = [list(op.error_inputs_sparse(device, layout)) for device in ("cpu", DEVICE)]
        except Exception:  # the database has none
            continue
        for theirs, mine in zip(*cases):
            _, error = outcome(op.op, (theirs.sample_input.input, *theirs.sample_input.args), theirs.sample_input.kwargs)
            _, my_error = outcome(op.op, (mine.sample_input.input, *mine.sample_input.args), mine.sample_input.kwargs)
            assert type(my_error) is type(error), f"{op.full_name}: {my_error!r} instead of {error!r}"
            raised += error is not None
    assert raised > 0
