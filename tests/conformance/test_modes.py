"""Every mode catches a device that is wrong in its way, and passes where the device is right.

Runs on openreg, with an operator that is replaced on the device only. Needs the built package.
"""

import copy
import warnings

import pytest
import torch

import torch_openreg

FAILURE = torch_openreg.load_error()
pytestmark = pytest.mark.skipif(FAILURE is not None, reason=f"openreg is not available: {FAILURE}")


def broken_row(name, mode, fault, *, dtype="float32", inplace=False, samples=4, device="openreg:0"):
    """Runs a row whose operator is fault(operator, *args, **kwargs) for device tensors, and itself on the CPU."""
    from torch_openreg.testing.conformance import run_row
    from torch_openreg.testing.conformance.execution import operators
    from torch_openreg.testing.conformance.samples import tensors

    entry = copy.copy(operators()[name])

    def replaced(operator):
        def call(*args, **kwargs):
            on_device = any(tensor.device.type == "openreg" for tensor in tensors((args, kwargs)))
            return fault(operator, *args, **kwargs) if on_device else operator(*args, **kwargs)

        return call

    if inplace:
        entry.inplace_variant = replaced(entry.inplace_variant)
    else:
        entry.op = replaced(entry.op)
    return run_row(entry, dtype, mode, device, samples=samples)


def without_warnings(operator, *args, **kwargs):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return operator(*args, **kwargs)


def with_a_warning(operator, *args, **kwargs):
    warnings.warn("the chip is warm")
    return operator(*args, **kwargs)


def returns_another_tensor(operator, *args, out=None, **kwargs):
    result = operator(*args, **kwargs)
    return result if out is None else out.copy_(result).clone() if out.shape == result.shape else operator(*args, out=out, **kwargs)


def casts_into_out(operator, *args, out=None, **kwargs):
    result = operator(*args, **kwargs)
    return result if out is None else operator(*args, out=out, **kwargs) if out.dtype == result.dtype else out.resize_(result.shape).copy_(result)


def writes_a_dense_out(operator, *args, out=None, **kwargs):
    result = operator(*args, **kwargs)
    return result if out is None else operator(*args, out=out, **kwargs) if out.shape != result.shape else out.set_(result)


def hides_the_version(operator, target, *args, **kwargs):
    operator(target.data, *args, **kwargs)
    return target


def sees_other_memory(operator, tensor, *args, **kwargs):
    """What a kernel does that takes the conjugate bit for nothing."""
    return operator(tensor.conj() if tensor.is_conj() else tensor, *args, **kwargs)


def forgets_the_negative_bit(operator, tensor, *args, **kwargs):
    return operator(torch._neg_view(tensor) if tensor.is_neg() else tensor, *args, **kwargs)


def reads_dense_memory(operator, tensor, *args, **kwargs):
    if not tensor.is_contiguous() and tensor.dim():
        tensor = tensor.as_strided(tensor.shape, torch.empty(tensor.shape).stride(), 0)
    return operator(tensor, *args, **kwargs)


def dense_in_place(operator, tensor, *args, **kwargs):
    reads_dense_memory(operator, tensor, *args, **kwargs)
    return tensor


def promotes_numbers(operator, left, right, *args, **kwargs):
    return operator(left, torch.tensor(right, dtype=torch.float64, device=left.device).expand(1) if isinstance(right, (int, float)) else right, *args, **kwargs)


def does_not_know_cpu_scalars(operator, left, right, *args, **kwargs):
    if isinstance(left, torch.Tensor) and isinstance(right, torch.Tensor) and left.device != right.device:
        raise RuntimeError("the chip cannot read the host's memory")
    return operator(left, right, *args, **kwargs)


class SineOnce(torch.autograd.Function):
    """A sine with a right gradient whose own gradient is wrong."""

    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x.sin()

    @staticmethod
    def backward(ctx, grad):
        (x,) = ctx.saved_tensors
        return grad * x.cos().detach()


CASES = {
    "out: another tensor": ("add", "out", returns_another_tensor, "what is returned[0]: str another tensor"),
    "out: no warning": ("add", "out", without_warnings, "wrong size: does not warn, the CPU warns UserWarning: An output with one or more"),
    "out: any dtype": ("add", "out", casts_into_out, "out of dtype int64: no error, the CPU raises RuntimeError: result type Float"),
    "out: strides": ("mul", "out", writes_a_dense_out, "strided out: offset of out[0]: str 0, expected str 1"),
    "layouts: memory": ("sin", "layouts", reads_dense_memory, "strided inputs: output: Tensor-likes are not close"),
    "layouts: strides": ("sin", "layouts", lambda op, x: op(x).contiguous(), "transposed inputs: output: strides"),
    "layouts: aliasing": ("t", "layouts", lambda op, x: op(x).clone(memory_format=torch.preserve_format), "memory of output[0]: str its own"),
    "layouts: a view of a copy": ("clone", "layouts", lambda op, x, **_: x.view(x.shape), "that of input 0 from 0"),
    "views: negative bit": ("exp", "views", forgets_the_negative_bit, "negated inputs: output: Tensor-likes are not close"),
    "scalars: promotion": ("mul", "scalars", promotes_numbers, "second operand a number: output: dtype torch.float64, expected torch.float32"),
    "scalars: CPU scalars": ("mul", "scalars", does_not_know_cpu_scalars, "the chip cannot read the host's memory"),
    "gradgrad: gone": ("sin", "gradgrad", lambda op, x: SineOnce.apply(x), "second gradient[0]: "),
    "forward_ad: gone": ("exp", "forward_ad", lambda op, x: op(x.detach()), "tangent[0]: str, expected a tensor"),
    "func: tangent": ("exp", "func", lambda op, x: op(x.detach() + 0 * x), "jvp: tangent: Tensor-likes are not close"),
    "warnings: one more": ("exp", "warnings", with_a_warning, "call: warns UserWarning: the chip is warm; the CPU does not"),
}


@pytest.mark.parametrize("name", CASES)
def test_a_mode_catches_a_wrong_device(name):
    operator, mode, fault, words = CASES[name]
    result = broken_row(operator, mode, fault)
    assert result.failing and words in result.sentence, f"{result.outcome}: {result.sentence}"


def test_a_device_that_is_wrong_from_the_second_call_on_is_caught():
    calls = []

    def wrong_later(operator, tensor):
        calls.append(tensor.stride())
        return operator(tensor) + (calls.count(tensor.stride()) > 1)

    result = broken_row("sin", "layouts", wrong_later, samples=1)
    assert "output: Tensor-likes are not close" in result.message


def test_views_catch_a_lost_conjugate_bit():
    result = broken_row("exp", "views", sees_other_memory, dtype="complex64")
    assert "conjugated inputs: output: Tensor-likes are not close" in result.message
    lazy = broken_row("conj", "views", lambda op, x: op(x).resolve_conj(), dtype="complex64")
    assert "bits of output[0]: str conj=False neg=" in lazy.message


@pytest.mark.parametrize(
    "operator, fault, words",
    [
        ("add", lambda op, x, *args, **kw: op(x, *args, **kw).clone(), "what is returned: str another tensor, expected str the input"),
        ("add", hides_the_version, "version: str 0, expected str 1"),
        ("add", lambda op, x, *args, **kw: x.copy_(torch.add(x, *args, **kw).sum_to_size(x.shape)), "no error, the CPU raises RuntimeError: output with shape"),
        ("exp", dense_in_place, "strided input: input: Tensor-likes are not close"),
    ],
)
def test_inplace_catches_a_wrong_variant(operator, fault, words):
    result = broken_row(operator, "inplace", fault, inplace=True, samples=0)
    assert result.failing and words in result.sentence, f"{result.outcome}: {result.sentence}"


def ignores(operator, *args, **kwargs):
    try:
        return operator(*args, **kwargs)
    except Exception:
        return args[0]


def raises_another_type(operator, *args, **kwargs):
    try:
        return operator(*args, **kwargs)
    except Exception as error:
        raise ValueError(str(error)) from None


def raises_other_words(operator, *args, **kwargs):
    try:
        return operator(*args, **kwargs)
    except Exception as error:
        raise type(error)("the chip says no") from None


@pytest.mark.parametrize(
    "fault, words",
    [
        (ignores, "call: no error, the CPU raises RuntimeError"),
        (raises_another_type, "call: raises ValueError: "),
        (raises_other_words, "call: raises RuntimeError: the chip says no; the CPU raises RuntimeError: "),
    ],
)
def test_errors_catch_a_call_that_does_not_raise_what_the_cpu_raises(fault, words):
    result = broken_row("dot", "errors", fault, samples=0)
    assert (result.outcome, words in result.message) == ("mismatch", True), result.sentence
    assert broken_row("dot", "errors", lambda op, *args: op(*args), samples=0).outcome == "pass"


def test_an_error_about_metadata_must_not_wait_for_a_synchronisation():
    from torch_openreg.testing.conformance.device import DeviceUnderTest

    class Late(DeviceUnderTest):
        pending = None

        def synchronize(self):
            super().synchronize()
            error, self.pending = self.pending, None
            if error is not None:
                raise torch.AcceleratorError(error)

    device = Late("openreg:0")

    def later(operator, *args, **kwargs):
        try:
            return operator(*args, **kwargs)
        except Exception as error:
            device.pending = str(error)
            return args[0]

    result = broken_row("dot", "errors", later, samples=0, device=device)
    assert "raises only when synchronised, AcceleratorError" in result.message
    assert broken_row("gather", "errors", later, samples=0, device=device).message.startswith("call: raises only"), "a wrong dtype of the index"
    index = broken_row("index_select", "errors", later, samples=0, device=device)
    assert "out of range" not in index.message, "what follows from values may come late"


def test_errors_include_dtypes_that_the_cpu_does_not_have():
    wrong = broken_row("mm", "errors", lambda op, x, y: x, dtype="bool")
    assert "no error, the CPU raises NotImplementedError" in wrong.message or "no error, the CPU raises RuntimeError" in wrong.message
    from torch_openreg.testing.conformance import run_row

    assert run_row("mm", "bool", "errors", "openreg:0").outcome == "pass"


def test_an_out_of_a_wider_dtype_has_the_tolerance_of_what_is_computed():
    from torch_openreg.testing.conformance.compare import Tolerance
    from torch_openreg.testing.conformance.modes import out

    floors = dict(out._floors(((torch.float32, Tolerance(0, 1e-3)),), torch.float32)[1:])
    assert floors == {torch.float64: Tolerance(0, 1e-3)} and out._floors((), torch.float32) == ((torch.float64, Tolerance(1.3e-6, 1e-5)),)
    assert out._floors((), torch.float64) == ()
