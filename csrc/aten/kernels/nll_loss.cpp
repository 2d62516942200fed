// The negative log likelihood, with sums in double.
#include "aten/kernels/nll_loss.h"

#include <algorithm>

namespace openreg::kernels {

template <class T>
bool nll_loss(const NllLossArgs& args, int64_t* wrong) {
  const T* in = static_cast<const T*>(args.in);
  const T* weight = static_cast<const T*>(args.weight);
  T* out = static_cast<T*>(args.out);
  double loss = 0, total = 0;
  for (int64_t row = 0; row < args.rows; ++row, in += args.classes) {
    const int64_t target = args.target[row];
    if (target == args.ignored) {
      if (args.reduction == Reduction::none) out[row] = 0;
      continue;
    }
    if (target < 0 || target >= args.classes) {
      *wrong = target;
      return false;
    }
    const T scale = weight != nullptr ? weight[target] : T(1);
    const T term = -in[target] * scale;
    if (args.reduction == Reduction::none) {
      out[row] = term;
    } else {
      loss += term;
      total += scale;
    }
  }
  *static_cast<T*>(args.total_weight) = static_cast<T>(total);
  if (args.reduction != Reduction::none) *out = static_cast<T>(args.reduction == Reduction::mean ? loss / total : loss);
  return true;
}

template <class T>
bool nll_loss_backward(const NllLossBackwardArgs& args, int64_t* wrong) {
  const T* grad = static_cast<const T*>(args.grad_out);
  const T* weight = static_cast<const T*>(args.weight);
  T* grad_in = static_cast<T*>(args.grad_in);
  std::fill_n(grad_in, args.rows * args.classes, T(0));
  const T share = args.reduction == Reduction::mean ? *grad / *static_cast<const T*>(args.total_weight) : *grad;
  for (int64_t row = 0; row < args.rows; ++row, grad_in += args.classes) {
    const int64_t target = args.target[row];
    if (target == args.ignored) continue;
    if (target < 0 || target >= args.classes) {
      *wrong = target;
      return false;
    }
    const T scale = weight != nullptr ? -weight[target] : T(-1);
    grad_in[target] = scale * (args.reduction == Reduction::none ? grad[row] : share);
  }
  return true;
}

template bool nll_loss<float>(const NllLossArgs&, int64_t*);
template bool nll_loss<double>(const NllLossArgs&, int64_t*);
template bool nll_loss_backward<float>(const NllLossBackwardArgs&, int64_t*);
template bool nll_loss_backward<double>(const NllLossBackwardArgs&, int64_t*);

}  // namespace openreg::kernels
