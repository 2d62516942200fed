"""The gap file for PyTorch's own test files: which of their tests an entry is about. No torch.

PyTorch's tests name no mode, so a table says which mode the tests of `test_ops.py`, `test_ops_gradients.py` and their like check.
"""

import re
from dataclasses import dataclass
from fnmatch import fnmatchcase

from .gaps import Gap

# mode -> the generic tests that check it, in PyTorch 2.13 to 2.15
TESTS = {
    "forward": ("TestCommon.test_compare_cpu", "TestCommon.test_numpy_ref", "TestCommon.test_complex_half_reference_testing"),
    "gradient": ("TestBwdGradients.test_fn_grad", "TestBwdGradients.test_inplace_grad"),
    "gradgrad": ("TestBwdGradients.test_fn_gradgrad", "TestBwdGradients.test_inplace_gradgrad"),
    "forward_ad": ("TestFwdGradients.test_forward_mode_AD", "TestFwdGradients.test_inplace_forward_mode_AD"),
    "out": ("TestCommon.test_out", "TestCommon.test_out_warning", "TestCommon.test_out_integral_dtype", "TestCommon.test_out_requires_grad_error"),
    "inplace": ("TestCommon.test_variant_consistency_eager",),
    "layouts": ("TestCommon.test_noncontiguous_samples",),
    "views": ("TestMathBits.test_conj_view", "TestMathBits.test_neg_view", "TestMathBits.test_neg_conj_view"),
    "errors": ("TestCommon.test_errors",),
}
_MODE_OF = {test: mode for mode, tests in TESTS.items() for test in tests}


@dataclass(frozen=True)
class TorchTest:
    """A test that PyTorch's machinery has made. generic: `Class.test_x` as the file writes it; name: with op and dtype, without the device;
    op: the full name of its operator, module or optimizer with the database's prefix, or empty; dtype: a name, or empty."""

    __test__ = False  # pytest: not a test itself

    generic: str
    name: str
    op: str = ""
    dtype: str = ""

    def covered_by(self, gap: Gap) -> bool:
        """Whether the entry is about this test. One with a mode is about the tests of the table, one without about all of its operator."""
        if gap.test:
            return fnmatchcase(self.name, gap.test) or fnmatchcase(self.generic, gap.test)
        if not self.op or not fnmatchcase(self.op, gap.op):
            return False
        if self.dtype and not fnmatchcase(self.dtype, gap.dtype):
            return False
        return gap.mode == "*" or fnmatchcase(_MODE_OF.get(self.generic, ""), gap.mode)


def plain_name(class_name: str, method: str, types: tuple[str, ...]) -> str:
    """TestMine.test_x_float32, for class TestMineCPU and method test_x_cpu_float32."""
    for type_ in types:
        class_name = class_name.removesuffix(type_.upper())
        method = re.sub(rf"(.*)_{type_}(?=_|$)", r"\1", method)
    return f"{class_name}.{method}"


def tests_of(mode: str) -> tuple[str, ...]:
    """The generic tests of the modes that the glob fits; none for every mode, which stands for all tests."""
    return () if mode == "*" else tuple(test for name, tests in TESTS.items() if fnmatchcase(name, mode) for test in tests)
