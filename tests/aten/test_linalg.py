"""Linear algebra: decompositions, solvers, norms and products in every form, their info results, out tensors, gradients, and the
errors of singular and wrong matrices, against the CPU.

Needs the built extension.
"""

import pytest
import torch
from parity import check, check_gradients

import torch_openreg  # noqa: F401  (registers the device)

L = torch.linalg


def regular(*batch, n=3, dtype=torch.float64):
    return torch.randn(*batch, n, n, dtype=dtype) + 3 * torch.eye(n, dtype=dtype)


def positive(a):
    return a @ a.mH + torch.eye(a.shape[-1], dtype=a.dtype, device=a.device)


def symmetric(a):
    return a + a.mH


SIX = torch.eye(6, dtype=torch.float64) * 3 + torch.arange(36, dtype=torch.float64).reshape(6, 6) / 36
CALLS = {
    "det": lambda a: L.det(a),
    "slogdet": lambda a: L.slogdet(a),
    "logdet": lambda a: torch.logdet(positive(a)) if not a.is_complex() else torch.logdet(a),
    "inv": lambda a: L.inv(a),
    "inv_ex": lambda a: L.inv_ex(a),
    "pinv": lambda a: L.pinv(a),
    "pinv hermitian": lambda a: L.pinv(symmetric(a), hermitian=True, rtol=1e-3),
    "solve": lambda a: L.solve(a, a.mT),
    "solve left": lambda a: L.solve(a, a.mT, left=False),
    "solve vector": lambda a: L.solve(a, a[..., 0]),
    "solve_ex": lambda a: L.solve_ex(a, a.mT),
    "solve_triangular": lambda a: L.solve_triangular(a.tril(), a.mT, upper=False),
    "solve_triangular unit": lambda a: L.solve_triangular(a.triu(), a.mT, upper=True, left=False, unitriangular=True),
    "cholesky": lambda a: L.cholesky(positive(a)),
    "cholesky upper": lambda a: L.cholesky(positive(a), upper=True),
    "cholesky_ex": lambda a: L.cholesky_ex(positive(a)),
    "cholesky_ex of another": lambda a: L.cholesky_ex(-positive(a)).info,
    "cholesky_solve": lambda a: torch.cholesky_solve(a, L.cholesky(positive(a))),
    "cholesky_inverse": lambda a: torch.cholesky_inverse(L.cholesky(positive(a))),
    "lu": lambda a: L.lu(a),
    "lu_factor": lambda a: L.lu_factor(a),
    "lu_factor_ex": lambda a: L.lu_factor_ex(a),
    "lu_solve": lambda a: L.lu_solve(*L.lu_factor(a), a, adjoint=True),
    "lu_unpack": lambda a: torch.lu_unpack(*L.lu_factor(a)),
    "ldl_factor": lambda a: L.ldl_factor(symmetric(a)),
    "ldl_factor_ex": lambda a: L.ldl_factor_ex(symmetric(a)),
    "ldl_solve": lambda a: L.ldl_solve(*L.ldl_factor(a + a.mT), a),
    "qr": lambda a: L.qr(a),
    "qr complete": lambda a: L.qr(a[..., :2], mode="complete"),
    "qr r": lambda a: L.qr(a, mode="r").R,
    "householder": lambda a: L.householder_product(*torch.geqrf(a)),
    "ormqr": lambda a: torch.ormqr(*torch.geqrf(a), a),
    "svdvals": lambda a: L.svdvals(a),
    "svd": lambda a: (lambda u, s, v: (u @ torch.diag_embed(s).to(a.dtype) @ v, s))(*L.svd(a)),
    "svd thin": lambda a: (lambda u, s, v: (u.abs(), s, v.abs()))(*L.svd(a[..., :2], full_matrices=False)),
    "svd driver": lambda a: L.svd(a, driver="gesvd"),
    "eig": lambda a: (lambda w, v: (v @ torch.diag_embed(w) @ L.inv(v)).abs())(*L.eig(a)),
    "eigvals": lambda a: L.eigvals(a).abs().sort().values,
    "eigh": lambda a: (lambda w, v: (w, v.abs()))(*L.eigh(symmetric(a))),
    "eigh upper": lambda a: L.eigh(a, UPLO="U").eigenvalues,
    "eigvalsh": lambda a: L.eigvalsh(a),
    "matrix_rank": lambda a: L.matrix_rank(a[..., :1] @ a[..., :1, :]),
    "matrix_rank tolerance": lambda a: L.matrix_rank(a, atol=0.1, rtol=torch.tensor(0.2, dtype=torch.float64, device=a.device)),
    "matrix_rank hermitian": lambda a: L.matrix_rank(symmetric(a), hermitian=True),
    "cond": lambda a: [L.cond(a, p) for p in (None, 1, -1, 2, -2, "fro", "nuc", float("inf"))],
    "norm": lambda a: [L.norm(a), L.norm(a, dim=-1, keepdim=True), L.norm(a.flatten(), 3), L.norm(a, dtype=torch.complex128 if a.is_complex() else torch.float64)],
    "vector_norm": lambda a: [L.vector_norm(a, p, -1) for p in (0, 1, 2, 2.5, float("inf"), -float("inf"))],
    "matrix_norm": lambda a: [L.matrix_norm(a, p) for p in ("fro", "nuc", 1, -1, 2, -2, float("inf"))],
    "matrix_power": lambda a: [L.matrix_power(a, n) for n in (-2, 0, 1, 5)],
    "matrix_exp": lambda a: L.matrix_exp(a),
    "multi_dot": lambda a: L.multi_dot([a.flatten(0, -2), a.flatten(0, -2)[:3], a.flatten(0, -2)[:3, 0]]),
    "cross": lambda a: L.cross(a, a.flip(-1), dim=-1),
    "vecdot": lambda a: L.vecdot(a, a.flip(0)),
    "vander": lambda a: L.vander(a[..., 0], N=4),
    "diagonal": lambda a: L.diagonal(a, offset=1),
    "lstsq": lambda a: L.lstsq(a, a.mT),
    "tensorinv": lambda a: L.tensorinv(SIX.to(a.device).reshape(2, 3, 6), ind=2),
    "tensorsolve": lambda a: L.tensorsolve(SIX.to(a.device).reshape(2, 3, 6), torch.ones(2, 3, dtype=torch.float64, device=a.device)),
    "triangular_solve": lambda a: torch.triangular_solve(a, a.triu()),
    "addmm": lambda a: torch.baddbmm(a.reshape(-1, 3, 3), a.reshape(-1, 3, 3), a.reshape(-1, 3, 3), beta=0.5, alpha=2),
    "chain": lambda a: torch.chain_matmul(a.flatten(0, -2), a.flatten(0, -2)[:3]),
    "kron": lambda a: torch.kron(a, a),
    "lobpcg": lambda a: torch.lobpcg(positive(regular(n=12).to(a.device)), k=1)[0].shape,
    "trapezoid": lambda a: torch.trapezoid(a, dim=-1),
    "inner": lambda a: torch.inner(a, a),
    "tensordot": lambda a: torch.tensordot(a, a, dims=1),
    "einsum": lambda a: torch.einsum("...ij,...jk->...ik", a, a),
}


def matrices():
    torch.manual_seed(11)
    return {
        "one": regular(),
        "float32": regular(dtype=torch.float32),
        "batch": regular(2, 2),
        "transposed": regular(2).mT,
        "complex": regular(dtype=torch.complex128),
        "complex batch": regular(2, dtype=torch.complex64),
        "conjugate": regular(dtype=torch.complex128).conj(),
        "empty batch": regular(0),
        "no rows": torch.empty(0, 0, dtype=torch.float64),
        "half": regular(dtype=torch.float16),
        "int": torch.arange(9).reshape(3, 3),
    }


@pytest.mark.parametrize("name", CALLS)
def test_values_strides_and_errors(name, device):
    for kind, a in matrices().items():
        torch.manual_seed(0)
        message = kind not in ("half", "int", "no rows", "empty batch")
        check(CALLS[name], a, device=device, rtol=1e-3, atol=1e-4, message=message, strides=True)
        if kind in ("one", "batch"):
            check(CALLS[name], a * 1.1, device=device, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("name", [
    "det", "slogdet", "inv", "pinv", "solve", "solve left", "cholesky", "lu", "lu_solve", "qr", "svdvals", "svd", "eigh", "eigvalsh", "matrix_exp",
    "matrix_power", "norm", "matrix_norm", "cholesky_solve", "triangular_solve", "eig", "lu_unpack",
])
def test_gradients(name, device):
    def real(result):
        leaves = [t for t in torch.utils._pytree.tree_leaves(result) if isinstance(t, torch.Tensor) and t.requires_grad]
        return [t.abs() if t.is_complex() else t for t in leaves]

    check_gradients(lambda a: real(CALLS[name](a)), regular(2).requires_grad_(), device=device, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("driver", [None, "gels", "gelsy", "gelsd", "gelss"])
def test_least_squares(driver, device):
    for a, b in ((regular(n=4)[:, :3], torch.randn(4, 2).double()), (torch.randn(2, 3, 5), torch.randn(2, 3, 2)), (torch.randn(5, 3, dtype=torch.complex64), torch.randn(5, 1, dtype=torch.complex64))):
        check(lambda a, b: tuple(L.lstsq(a, b, driver=driver)), a, b, device=device, rtol=1e-3, atol=1e-4)
        if driver not in (None, "gelsy"):  # whose pivots start from memory that the CPU's kernel does not initialise
            check(lambda a, b: tuple(L.lstsq(a, b, driver=driver, rcond=0.3)), a, b, device=device, rtol=1e-3, atol=1e-4)
    check(lambda a, b: tuple(L.lstsq(a, b, driver="none")), regular(), regular(), device=device)
    check_gradients(lambda a, b: L.lstsq(a, b, driver=driver).solution, torch.randn(5, 3, dtype=torch.float64, requires_grad=True), torch.randn(5, 2, dtype=torch.float64, requires_grad=True), device=device)


ERRORS = {
    "inv": lambda a: L.inv(a * 0),
    "inv batch": lambda a: L.inv(torch.stack([a, a * 0])),
    "solve": lambda a: L.solve(a * 0, a),
    "cholesky": lambda a: L.cholesky(-a),
    "cholesky batch": lambda a: L.cholesky(torch.stack([torch.eye(3, dtype=a.dtype, device=a.device), -a])),
    "lu_factor": lambda a: L.lu_factor(a * 0),
    "ldl_factor": lambda a: L.ldl_factor(a * 0),
    "tensorinv": lambda a: L.tensorinv(a.reshape(3, 3, 1, 1) * 0),
    "svd of nan": lambda a: L.svd(a * float("nan")),
    "eigh of nan": lambda a: L.eigh(a * float("nan")),
    "eig of nan": lambda a: L.eig(a * float("nan")),
    "not square": lambda a: L.inv(a[:2]),
    "a vector": lambda a: L.det(a[0]),
    "sizes": lambda a: L.solve(a, a[:2]),
    "dtypes": lambda a: L.solve(a, a.float()),
    "norm": lambda a: L.norm(a, "no"),
    "int": lambda a: L.inv(a.long()),
    "power": lambda a: L.matrix_power(a[:2], 2),
    "cross": lambda a: L.cross(a[:2], a[:2], dim=0),
    "mode": lambda a: L.qr(a, mode="no"),
    "UPLO": lambda a: L.eigh(a, UPLO="X"),
    "out dtype": lambda a: L.inv(a, out=torch.empty(3, 3, device=a.device)),
    "out device": lambda a: L.inv(a, out=torch.empty(3, 3, dtype=a.dtype, device="meta")),
}


@pytest.mark.parametrize("name", ERRORS)
def test_errors(name, device):
    for _ in range(2):
        check(ERRORS[name], regular(), device=device, message=False)
        torch.openreg.synchronize(device)


def test_outs(device):
    for function, shapes in (
        (L.inv, [(3, 3)]), (L.det, [()]), (L.qr, [(3, 3)] * 2), (L.svdvals, [(3,)]), (L.lu_factor, [(3, 3), (3,)]), (L.eigvals, [(3,)]), (L.cholesky, [(3, 3)]),
    ):
        for wrong in (False, True):

            def run(a):
                dtypes = [torch.int32 if function is L.lu_factor and i else torch.complex128 if function is L.eigvals else a.dtype for i in range(len(shapes))]
                outs = [torch.empty(0 if wrong else shape, dtype=dtype, device=a.device) for shape, dtype in zip(shapes, dtypes)]
                result = function(positive(a), out=outs[0] if len(outs) == 1 else tuple(outs))
                return [t.abs() for t in outs], len(result) if isinstance(result, tuple) else 1

            check(run, regular(), device=device, strides=False)


def test_a_triangular_solve_of_two_dtypes_is_the_cpus(device):
    """The kernel takes it where the diagonal is known to be one; the result has the matrix's dtype, also when the call is remembered."""
    a, b = torch.eye(3, dtype=torch.complex64), torch.ones(3, 1, dtype=torch.bool)
    expected = torch.linalg.solve_triangular(a, b, upper=True, unitriangular=True)
    for _ in range(2):
        found = torch.linalg.solve_triangular(a.to(device), b.to(device), upper=True, unitriangular=True)
        torch.openreg.synchronize(device)
        assert found.dtype == expected.dtype and torch.equal(found.cpu(), expected)
