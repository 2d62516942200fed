"""Products of matrices in every layout, solvers and decompositions. References: numpy, and what a decomposition must give back."""

import itertools

import numpy
import torch
from reference import COMPLEX, FLOATS, INTEGERS, host, numbers, reals
from torch.testing._internal.common_device_type import dtypes, instantiate_device_type_tests
from torch.testing._internal.common_utils import TestCase, parametrize, run_tests

SHAPES = {
    "vector_vector": ((5,), (5,)), "matrix_vector": ((3, 5), (5,)), "vector_matrix": ((5,), (5, 4)), "matrix_matrix": ((3, 5), (5, 4)),
    "batch": ((2, 3, 5), (2, 5, 4)), "batch_matrix": ((2, 3, 5), (5, 4)), "matrix_batch": ((3, 5), (2, 5, 4)), "batch_vector": ((2, 3, 5), (5,)),
    "vector_batch": ((5,), (2, 5, 4)), "broadcast": ((2, 1, 3, 5), (6, 5, 4)), "inner_empty": ((3, 0), (0, 4)), "outer_empty": ((0, 5), (5, 4)),
    "one": ((1, 1), (1, 1)), "tall": ((100, 3), (3, 2)), "large": ((70, 130), (130, 90)),
}  # fmt: skip
LAYOUTS = {
    "contiguous": lambda x: x,
    "transposed": lambda x: x.mT.contiguous().mT if x.dim() > 1 else x,
    "strided": lambda x: torch.stack([x, x], -1)[..., 1],
    "offset": lambda x: torch.cat([x[:1], x])[1:] if x.numel() else x,
}


def filled(shape, dtype, seed=0):
    """Normally distributed numbers of a dtype; small whole ones for integers."""
    if dtype in INTEGERS:
        return numbers(shape, dtype, seed)
    array = reals(shape, seed)
    return (array + 1j * reals(shape, seed + 100) if dtype.is_complex else array).astype(str(dtype).removeprefix("torch."))


def positive(size, dtype):
    array = filled((2, size, size), dtype)
    return array @ array.conj().swapaxes(-1, -2) + size * numpy.eye(size, dtype=array.dtype)


class TestLinalg(TestCase):
    @parametrize("layouts", list(itertools.product(LAYOUTS, LAYOUTS)), name_fn=lambda pair: "_".join(pair))
    @parametrize("name", sorted(SHAPES))
    def test_products_in_every_layout(self, device, name, layouts):
        left, right = (reals(shape, seed) for seed, shape in enumerate(SHAPES[name]))
        a, b = (LAYOUTS[layout](torch.tensor(array, device=device)) for layout, array in zip(layouts, (left, right)))
        self.assertEqual(a @ b, numpy.asarray(left @ right))

    @parametrize("name", sorted(SHAPES))
    @dtypes(torch.float32, *COMPLEX, torch.int64, torch.int8)
    def test_products_of_every_dtype(self, device, dtype, name):
        left, right = (filled(shape, dtype, seed) for seed, shape in enumerate(SHAPES[name]))
        got = torch.tensor(left, device=device) @ torch.tensor(right, device=device)
        self.assertEqual(got, numpy.asarray(left @ right), **({"rtol": 1e-4, "atol": 1e-4} if dtype in (torch.float32, torch.complex64) else {}))

    @dtypes(torch.float16, torch.bfloat16)
    def test_products_of_narrow_floats_add_in_wider_ones(self, device, dtype):
        x = torch.ones(2, 3000, dtype=dtype, device=device)
        self.assertEqual((x @ x.t()).float().tolist(), [[torch.tensor(3000.0).to(dtype).float().item()] * 2] * 2)
        array = numbers((8, 16), torch.float32)
        small = torch.tensor(array, device=device).to(dtype)
        self.assertEqual((small @ small.t()).float(), array @ array.T, rtol=1e-2, atol=0.5)

    @dtypes(*COMPLEX)
    def test_products_of_conjugated_and_transposed_matrices(self, device, dtype):
        left, right = filled((4, 5), dtype), filled((4, 5), dtype, 1)
        a, b = torch.tensor(left, device=device), torch.tensor(right, device=device)
        tolerance = {"rtol": 1e-4, "atol": 1e-4}
        self.assertEqual(a @ b.mH, left @ right.conj().T, **tolerance)
        self.assertEqual(a.mH @ b, left.conj().T @ right, **tolerance)
        self.assertEqual(a.conj() @ b.t(), left.conj() @ right.T, **tolerance)
        self.assertEqual(torch.vdot(a[0], b[0]), numpy.asarray(numpy.vdot(left[0], right[0])), **tolerance)
        self.assertEqual(torch.mv(a.conj(), b[1].conj()), left.conj() @ right[1].conj(), **tolerance)

    @parametrize("beta", [0, 1, -0.5])
    @parametrize("alpha", [0, 1, 2.5])
    def test_products_that_add(self, device, alpha, beta):
        m, a, b = reals((3, 4)), reals((3, 5), 1), reals((5, 4), 2)
        batch_a, batch_b, batch_m = reals((2, 3, 5), 3), reals((2, 5, 4), 4), reals((2, 3, 4), 5)
        on = lambda array: torch.tensor(array, device=device)  # noqa: E731
        self.assertEqual(torch.addmm(on(m), on(a), on(b), beta=beta, alpha=alpha), beta * m + alpha * (a @ b))
        self.assertEqual(torch.addmm(on(m[0]), on(a), on(b), beta=beta, alpha=alpha), beta * m[0] + alpha * (a @ b))
        self.assertEqual(torch.addmv(on(m[:, 0]), on(a), on(b[:, 0]), beta=beta, alpha=alpha), beta * m[:, 0] + alpha * (a @ b[:, 0]))
        self.assertEqual(torch.addr(on(m), on(a[:, 0]), on(b[0]), beta=beta, alpha=alpha), beta * m + alpha * numpy.outer(a[:, 0], b[0]))
        self.assertEqual(torch.baddbmm(on(batch_m), on(batch_a), on(batch_b), beta=beta, alpha=alpha), beta * batch_m + alpha * (batch_a @ batch_b))
        self.assertEqual(torch.addbmm(on(m), on(batch_a), on(batch_b), beta=beta, alpha=alpha), beta * m + alpha * (batch_a @ batch_b).sum(0))
        changed = on(m.T.copy()).t()
        changed.addmm_(on(a), on(b), beta=beta, alpha=alpha)
        self.assertEqual(changed, beta * m + alpha * (a @ b))

    def test_beta_zero_hides_nan(self, device):
        nan = torch.full((2, 2), float("nan"), device=device)
        eye = torch.eye(2, device=device)
        self.assertEqual(torch.addmm(nan, eye, eye, beta=0), eye)
        self.assertEqual(torch.baddbmm(nan[None], eye[None], eye[None], beta=0), eye[None])
        self.assertTrue(torch.addmm(nan, eye, eye).isnan().all())

    def test_out_of_products(self, device):
        a, b = reals((3, 5)), reals((5, 4), 1)
        x, y = torch.tensor(a, device=device), torch.tensor(b, device=device)
        for out in (torch.empty(3, 4, dtype=x.dtype, device=device), torch.empty(4, 3, dtype=x.dtype, device=device).t(), torch.empty(3, 8, dtype=x.dtype, device=device)[:, ::2]):
            pointer = out.data_ptr()
            self.assertEqual(torch.mm(x, y, out=out), a @ b)
            self.assertEqual(out.data_ptr(), pointer)
        with self.assertRaisesRegex(RuntimeError, "shapes cannot be multiplied"):
            x @ x
        with self.assertRaisesRegex(RuntimeError, "(?i)dtype"):
            x @ y.float()

    @parametrize(
        "equation,shapes",
        [("ij,jk->ik", [(3, 4), (4, 5)]), ("bij,bjk->bik", [(2, 3, 4), (2, 4, 5)]), ("ii->i", [(4, 4)]), ("ij->ji", [(3, 4)]), ("i,j->ij", [(3,), (4,)]),
         ("bhid,bhjd->bhij", [(2, 2, 3, 4), (2, 2, 5, 4)]), ("...ij->...", [(2, 3, 4)]), ("ij,j,i->", [(3, 4), (4,), (3,)]), ("abc,cd,de->abe", [(2, 3, 4), (4, 5), (5, 2)])],
        name_fn=lambda equation, shapes: "".join(c if c.isalnum() else "_" for c in equation),
    )  # fmt: skip
    def test_einsum(self, device, equation, shapes):
        arrays = [reals(shape, seed) for seed, shape in enumerate(shapes)]
        got = torch.einsum(equation, *[torch.tensor(array, device=device) for array in arrays])
        self.assertEqual(got, numpy.asarray(numpy.einsum(equation, *arrays)))

    def test_other_products(self, device):
        a, b = reals((4, 3)), reals((4, 3), 1)
        x, y = torch.tensor(a, device=device), torch.tensor(b, device=device)
        self.assertEqual(torch.tensordot(x, y, ([0], [0])), numpy.tensordot(a, b, ([0], [0])))
        self.assertEqual(torch.linalg.cross(x, y), numpy.cross(a, b))
        self.assertEqual(torch.outer(x[0], y[0]), numpy.outer(a[0], b[0]))
        self.assertEqual(torch.kron(x, y), numpy.kron(a, b))
        self.assertEqual(torch.inner(x, y), numpy.inner(a, b))
        self.assertEqual(torch.linalg.multi_dot([x, y.t(), x]), a @ b.T @ a)
        self.assertEqual(torch.linalg.matmul(x, y.t()), a @ b.T)
        self.assertEqual(torch.linalg.matrix_power(x[:3], 3), numpy.linalg.matrix_power(a[:3], 3))
        self.assertEqual(torch.trace(x[:3]), numpy.asarray(numpy.trace(a[:3])))
        self.assertEqual(torch.cdist(x, y), numpy.sqrt(((a[:, None] - b[None]) ** 2).sum(-1)))
        self.assertEqual(torch.linalg.vander(x[0]), numpy.vander(a[0], increasing=True))

    @parametrize("size", [1, 3, 20])
    @dtypes(*FLOATS, *COMPLEX)
    def test_decompositions_give_the_matrix_back(self, device, dtype, size):
        a = positive(size, dtype)
        x = torch.tensor(a, device=device)
        tolerance = {"rtol": 1e-3, "atol": 1e-3} if dtype in (torch.float32, torch.complex64) else {"rtol": 1e-9, "atol": 1e-9}
        close = lambda got, want: self.assertEqual(got, want, **tolerance)  # noqa: E731
        factor = torch.linalg.cholesky(x)
        close(factor @ factor.mH, a)
        close(factor, factor.tril())
        q, r = torch.linalg.qr(x)
        close(q @ r, a)
        close(q.mH @ q, numpy.broadcast_to(numpy.eye(size, dtype=a.dtype), a.shape).copy())
        u, s, vh = torch.linalg.svd(x, full_matrices=False)
        close(u @ (s.unsqueeze(-1) * vh), a)
        values, vectors = torch.linalg.eigh(x)
        close(x @ vectors, host(vectors * values.unsqueeze(-2)))
        close(values, numpy.linalg.eigvalsh(a))
        values, vectors = torch.linalg.eig(x)
        close(x.to(values.dtype) @ vectors, host(vectors * values.unsqueeze(-2)))
        p, lower, upper = torch.linalg.lu(x)
        close(p @ lower @ upper, a)
        close(torch.linalg.inv(x) @ x, numpy.broadcast_to(numpy.eye(size, dtype=a.dtype), a.shape).copy())
        close(torch.linalg.pinv(x) @ x, numpy.broadcast_to(numpy.eye(size, dtype=a.dtype), a.shape).copy())

    @parametrize("layout", sorted(LAYOUTS))
    @dtypes(*FLOATS, *COMPLEX)
    def test_solvers(self, device, dtype, layout):
        a, b = positive(4, dtype), filled((2, 4, 3), dtype, 7)
        x, y = LAYOUTS[layout](torch.tensor(a, device=device)), LAYOUTS[layout](torch.tensor(b, device=device))
        tolerance = {"rtol": 1e-3, "atol": 1e-3} if dtype in (torch.float32, torch.complex64) else {}
        want = numpy.linalg.solve(a, b)
        self.assertEqual(torch.linalg.solve(x, y), want, **tolerance)
        self.assertEqual(torch.cholesky_solve(y, torch.linalg.cholesky(x)), want, **tolerance)
        self.assertEqual(torch.linalg.lu_solve(*torch.linalg.lu_factor(x), y), want, **tolerance)
        self.assertEqual(torch.linalg.lstsq(x, y).solution, want, **tolerance)
        upper = x.triu()
        self.assertEqual(torch.linalg.solve_triangular(upper, y, upper=True), numpy.linalg.solve(numpy.triu(a), b), **tolerance)
        self.assertEqual(torch.linalg.det(x), numpy.linalg.det(a), **({"rtol": 1e-4, "atol": 1e-3} if tolerance else {}))
        sign, logarithm = torch.linalg.slogdet(x)
        self.assertEqual(sign * logarithm.exp(), numpy.linalg.det(a), **({"rtol": 1e-3, "atol": 1e-2} if tolerance else {}))

    def test_a_singular_matrix_is_an_error_or_a_report(self, device):
        singular = torch.ones(2, 3, 3, dtype=torch.float64, device=device)
        singular[0] = torch.eye(3)
        with self.assertRaisesRegex(torch.linalg.LinAlgError, r"Batch element 1.*singular"):
            torch.linalg.inv(singular)
        with self.assertRaisesRegex(torch.linalg.LinAlgError, "singular"):
            torch.linalg.solve(singular, singular)
        with self.assertRaisesRegex(torch.linalg.LinAlgError, "positive-definite"):
            torch.linalg.cholesky(-singular)
        self.assertEqual(torch.linalg.inv_ex(singular)[1].tolist(), [0, 2])
        self.assertEqual(torch.linalg.cholesky_ex(-singular)[1].tolist(), [1, 1])
        self.assertEqual(torch.linalg.det(singular).tolist(), [1, 0])
        self.assertEqual(torch.linalg.matrix_rank(singular).tolist(), [3, 1])

    @parametrize("order", ["fro", "nuc", 1, -1, 2, -2, float("inf"), float("-inf")], name_fn=lambda order: str(order).replace("-", "minus_"))
    def test_norms_of_matrices(self, device, order):
        a = reals((4, 5))
        self.assertEqual(torch.linalg.matrix_norm(torch.tensor(a, device=device), order), numpy.asarray(numpy.linalg.norm(a, order)))
        self.assertEqual(torch.linalg.cond(torch.tensor(a[:, :4], device=device), order), numpy.asarray(numpy.linalg.cond(a[:, :4], order)))

    def test_the_exponential_of_a_matrix(self, device):
        a = reals((5, 5)) / 3
        term, total = numpy.eye(5), numpy.eye(5)
        for k in range(1, 40):
            term = term @ a / k
            total = total + term
        self.assertEqual(torch.linalg.matrix_exp(torch.tensor(a, device=device)), total)

    @parametrize("name", ["fft", "ifft", "rfft", "irfft", "hfft", "ihfft", "fft2", "ifftn", "rfft2", "irfftn"])
    @parametrize("norm", ["backward", "ortho", "forward"])
    def test_fourier_transforms(self, device, name, norm):
        array = reals((4, 6)) + (0 if name in ("rfft", "rfft2", "ihfft") else 1j * reals((4, 6), 1))
        got = getattr(torch.fft, name)(torch.tensor(array, device=device), norm=norm)
        arguments = {"axes": (-2, -1)} if name.endswith(("2", "n")) else {}
        self.assertEqual(got, getattr(numpy.fft, name)(array, norm=norm, **arguments))

    @parametrize("name", ["matmul", "solve", "inv", "cholesky", "svdvals", "eigvalsh", "det", "qr"])
    def test_gradients(self, device, name):
        x = torch.tensor(positive(3, torch.float64)[0], device=device, requires_grad=True)
        functions = {
            "matmul": lambda m: m @ m.mT, "solve": lambda m: torch.linalg.solve(m, m.mT + 1), "inv": torch.linalg.inv,
            "cholesky": lambda m: torch.linalg.cholesky((m + m.mT) / 2), "svdvals": torch.linalg.svdvals, "det": torch.linalg.det,
            "eigvalsh": lambda m: torch.linalg.eigvalsh((m + m.mT) / 2), "qr": lambda m: torch.linalg.qr(m)[1],
        }  # fmt: skip
        self.assertTrue(torch.autograd.gradcheck(functions[name], (x,)))


instantiate_device_type_tests(TestLinalg, globals())

if __name__ == "__main__":
    run_tests()
