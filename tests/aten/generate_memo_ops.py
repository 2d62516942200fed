"""Writes csrc/aten/engine/memo_ops.inc: the operators whose result metadata follow from argument metadata.

Every operator that the operator database reaches on the CPU is called twice with equal metadata and different data. An operator
stays on the list when all such pairs gave results of equal metadata, none of them a view of an argument, a list or a number; it leaves the list
when core tags it as data-dependent, or for a reason below.

    python tests/aten/generate_memo_ops.py            # rewrites the file
    python tests/aten/generate_memo_ops.py --check    # exits with 1 when the file is out of date
"""

import argparse
import sys
import textwrap
from pathlib import Path

import torch
from torch.testing._internal.common_methods_invocations import op_db
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

TARGET = Path(__file__).resolve().parents[2] / "csrc" / "aten" / "engine" / "memo_ops.inc"

# Operators that pass the experiment although their results follow from data.
DATA_DEPENDENT = {
    "aten::index.Tensor_out": "a boolean index selects as many rows as it has true values",
    "aten::nonzero_static": "keeps its own stream of padding; not worth a rule",
    "aten::repeat_interleave.Tensor": "the output's length is the sum of the repeats",
    "aten::segment_reduce": "offsets and lengths are read on the host",
    "aten::_ctc_loss": "lengths are read on the host",
    "aten::histc": "an empty range is taken from the data",
    "aten::equal": "its result is a number",
}

# Operators that training needs and that the database reaches in no second form, or only through their functional twins.
ALSO = (
    "aten::_foreach_add_.List aten::_foreach_add_.Scalar aten::_foreach_add_.ScalarList aten::_foreach_add_.Tensor "
    "aten::_foreach_addcdiv_.Scalar aten::_foreach_addcdiv_.ScalarList aten::_foreach_addcdiv_.Tensor "
    "aten::_foreach_addcmul_.Scalar aten::_foreach_addcmul_.ScalarList aten::_foreach_addcmul_.Tensor "
    "aten::_foreach_clamp_max_.Scalar aten::_foreach_clamp_min_.Scalar aten::_foreach_copy_ aten::_foreach_div_.List "
    "aten::_foreach_div_.Scalar aten::_foreach_div_.ScalarList aten::_foreach_div_.Tensor aten::_foreach_exp_ aten::_foreach_lerp_.List "
    "aten::_foreach_lerp_.Scalar aten::_foreach_lerp_.ScalarList aten::_foreach_maximum_.List aten::_foreach_mul_.List "
    "aten::_foreach_mul_.Scalar aten::_foreach_mul_.ScalarList aten::_foreach_mul_.Tensor aten::_foreach_neg_ "
    "aten::_foreach_pow_.Scalar aten::_foreach_reciprocal_ aten::_foreach_rsqrt_ aten::_foreach_sign_ aten::_foreach_sqrt_ "
    "aten::_foreach_sub_.List aten::_foreach_sub_.Scalar aten::_foreach_sub_.ScalarList aten::_foreach_zero_ "
    "aten::_fused_adam_ aten::_fused_adam_.tensor_lr aten::_fused_adamw_ aten::_fused_adamw_.tensor_lr aten::_fused_sgd_ "
    "aten::_fused_sgd_.tensor_lr aten::_fused_adagrad_ aten::_fused_adagrad_.tensor_lr "
    "aten::_amp_foreach_non_finite_check_and_unscale_ aten::_amp_update_scale_ "
    "aten::_scaled_dot_product_flash_attention_for_cpu aten::_scaled_dot_product_flash_attention_for_cpu_backward "
    "aten::convolution aten::convolution_backward aten::native_layer_norm aten::native_layer_norm_backward "
    "aten::native_group_norm aten::native_group_norm_backward aten::native_batch_norm aten::native_batch_norm_backward "
    "aten::embedding_dense_backward aten::nll_loss_forward aten::nll_loss_backward aten::fill_.Scalar aten::fill_.Tensor aten::zero_ "
    "aten::zero_ aten::_softmax aten::_softmax_backward_data aten::_log_softmax aten::_log_softmax_backward_data "
    "aten::arange.start_out aten::range.out aten::linspace.out aten::logspace.out aten::eye.out aten::eye.m_out aten::randperm.generator_out "
    "aten::index.Tensor aten::_index_put_impl_ aten::logsumexp.out aten::complex.out aten::polar.out aten::lerp_.Scalar aten::addcdiv_ aten::addcmul_ "
    "aten::masked_fill_.Scalar aten::masked_fill_.Tensor aten::kthvalue.values aten::frexp.Tensor_out aten::_cummax_helper aten::_cummin_helper "
    "aten::_logcumsumexp aten::_logcumsumexp.out aten::_cholesky_solve_helper aten::nanmedian.dim_values aten::median.dim_values "
    "aten::_embedding_bag_forward_only aten::embedding_renorm_ aten::histogram.bins_tensor aten::_assert_async aten::_assert_async.msg"
).split()


def metadata(value):
    if isinstance(value, torch.Tensor):
        if value.layout != torch.strided:
            return value.layout
        return (tuple(value.shape), value.stride(), value.dtype, value.is_conj(), value.is_neg())
    return value if not isinstance(value, (float, complex)) else type(value)


class Recorder(TorchDispatchMode):
    """Notes, for every operator, the metadata of its arguments and results; takes those off that contradict themselves."""

    def __init__(self):
        super().__init__()
        self.seen, self.wrong = {}, {}

    def refuse(self, name, reason):
        self.wrong.setdefault(name, reason)

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if any(isinstance(t, torch.Tensor) and t.layout != torch.strided for t in tree_leaves((args, kwargs))):
            return func(*args, **kwargs)  # the engine never remembers a call with such arguments
        key = repr(tree_map(metadata, (args, kwargs)))
        storages = {t.untyped_storage()._cdata for t in tree_leaves((args, kwargs)) if isinstance(t, torch.Tensor) and t.layout == torch.strided}
        result = func(*args, **kwargs)
        schema = func._schema
        name = schema.name + ("." + schema.overload_name if schema.overload_name else "")
        if not name.startswith("aten::"):
            return result
        returned = [] if result is None else [result] if not isinstance(result, (tuple, list)) else list(result)
        if any(r.alias_info is not None and not r.alias_info.is_write for r in schema.returns):
            self.refuse(name, "a view")
        for value, declared in zip(returned, schema.returns):
            if not isinstance(value, torch.Tensor):
                if value is not None:
                    self.refuse(name, "returns something else than a tensor")
            elif value.layout != torch.strided or value.is_conj() or value.is_neg():
                self.refuse(name, "returns a tensor of another layout")
            elif declared.alias_info is None and value.untyped_storage()._cdata in storages:
                self.refuse(name, "returns an argument's memory")
        meta = tree_map(metadata, returned)
        if self.seen.setdefault(name, {}).setdefault(key, meta) != meta:
            self.refuse(name, "metadata follow from data")
        if torch.Tag.data_dependent_output in func.tags or torch.Tag.dynamic_output_shape in func.tags:
            self.refuse(name, "tagged by core")
        return result


def run(recorder, op, dtype, seed):
    torch.manual_seed(seed)
    try:
        samples = list(op.sample_inputs("cpu", dtype, requires_grad=dtype.is_floating_point and op.supports_autograd))
    except Exception:  # noqa: BLE001  (an operator without samples of this dtype tells nothing)
        return
    for sample in samples[:: max(1, len(samples) // 12)]:
        try:
            with recorder:
                result = op(sample.input, *sample.args, **sample.kwargs)
                sums = [t.sum() for t in tree_leaves(result) if isinstance(t, torch.Tensor) and t.requires_grad and not t.is_complex()]
                if sums:
                    torch.autograd.backward(sums)
        except Exception:  # noqa: BLE001  (the CPU refuses the sample)
            continue


def generate():
    recorder = Recorder()
    for op in op_db:
        for dtype in (torch.float32, torch.int64, torch.bool):
            if dtype in op.dtypes:
                for seed in (1, 2, 3):
                    run(recorder, op, dtype, seed)
    # index is tagged as data-dependent for masks alone, which the engine looks for itself.
    recorder.wrong.pop("aten::index.Tensor", None)
    names = (set(recorder.seen) | set(ALSO)) - set(recorder.wrong) - set(DATA_DEPENDENT)
    return formatted(names)


def formatted(names):
    lines = textwrap.wrap(" ".join(f'"{name}",' for name in sorted(names)), width=130, initial_indent="    ", subsequent_indent="    ")
    return "    // Written by tests/aten/generate_memo_ops.py; do not edit.\n" + "\n".join(lines) + "\n"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="compare instead of writing")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    text = generate()
    if arguments.check:
        sys.exit(0 if TARGET.read_text() == text else "memo_ops.inc is out of date; run tests/aten/generate_memo_ops.py")
    TARGET.write_text(text)
    print(f"{TARGET}: {text.count(',')} operators")


if __name__ == "__main__":
    main()
