// LSTM and GRU cells: core sends the cells of an out-of-tree device to fused kernels. Here they are compositions of device
// operators; the workspace keeps the activated gates for backward.
#include <ATen/TensorOperators.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/sigmoid.h>
#include <ATen/ops/stack.h>
#include <ATen/ops/tanh.h>
#include <ATen/ops/zeros_like.h>
#include <torch/library.h>

#include <tuple>

namespace openreg {

namespace {

using at::Tensor;

bool defined(const std::optional<Tensor>& tensor) { return tensor && tensor->defined(); }

// A bias that does not fit is an error in the words of the CPU, which expands it.
Tensor with_bias(const Tensor& gates, const std::optional<Tensor>& bias) {
  if (!defined(bias)) return gates;
  return gates + (bias->dim() == 1 && bias->size(0) == gates.size(-1) ? *bias : bias->expand(gates.sizes()));
}

// Gates in the order input, forget, cell, output; [batch, 4 * hidden].
std::tuple<Tensor, Tensor, Tensor> lstm_cell(const Tensor& input_gates, const Tensor& hidden_gates, const Tensor& cx,
                                             const std::optional<Tensor>& input_bias, const std::optional<Tensor>& hidden_bias) {
  const Tensor gates = with_bias(input_gates, input_bias) + with_bias(hidden_gates, hidden_bias);
  const auto chunks = gates.unsafe_chunk(4, 1);
  const Tensor input = chunks[0].sigmoid(), forget = chunks[1].sigmoid(), cell = chunks[2].tanh(), output = chunks[3].sigmoid();
  const Tensor cy = forget * cx + input * cell;
  return {output * cy.tanh(), cy, at::cat({input, forget, cell, output}, 1)};
}

std::tuple<Tensor, Tensor, Tensor> lstm_cell_backward(const std::optional<Tensor>& grad_hy, const std::optional<Tensor>& grad_cy,
                                                      const Tensor& cx, const Tensor& cy, const Tensor& workspace, bool has_bias) {
  if (!defined(grad_hy) && !defined(grad_cy)) return {};
  const auto gates = workspace.unsafe_chunk(4, 1);
  const Tensor &input = gates[0], &forget = gates[1], &cell = gates[2], &output = gates[3];
  const Tensor activated = cy.tanh();
  Tensor grad_cell_state = defined(grad_cy) ? *grad_cy : at::zeros_like(cy);
  Tensor grad_output = at::zeros_like(output);
  if (defined(grad_hy)) {
    grad_output = *grad_hy * activated * output * (1 - output);
    grad_cell_state = grad_cell_state + *grad_hy * output * (1 - activated * activated);
  }
  const Tensor grad_gates = at::cat({grad_cell_state * cell * input * (1 - input), grad_cell_state * cx * forget * (1 - forget),
                                     grad_cell_state * input * (1 - cell * cell), grad_output},
                                    1);
  return {grad_gates, grad_cell_state * forget, has_bias ? grad_gates.sum(0) : Tensor()};
}

// Gates in the order reset, update, new; [batch, 3 * hidden]. The workspace keeps reset, update, new and the hidden part of new.
std::tuple<Tensor, Tensor> gru_cell(const Tensor& input_gates, const Tensor& hidden_gates, const Tensor& hx,
                                    const std::optional<Tensor>& input_bias, const std::optional<Tensor>& hidden_bias) {
  const auto inputs = with_bias(input_gates, input_bias).unsafe_chunk(3, 1);
  const auto hiddens = with_bias(hidden_gates, hidden_bias).unsafe_chunk(3, 1);
  const Tensor reset = (inputs[0] + hiddens[0]).sigmoid(), update = (inputs[1] + hiddens[1]).sigmoid();
  const Tensor fresh = (inputs[2] + reset * hiddens[2]).tanh();
  return {fresh + update * (hx - fresh), at::cat({reset, update, fresh, hiddens[2], hx}, 1)};
}

std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor> gru_cell_backward(const Tensor& grad_hy, const Tensor& workspace, bool has_bias) {
  const auto saved = workspace.unsafe_chunk(5, 1);
  const Tensor &reset = saved[0], &update = saved[1], &fresh = saved[2], &hidden = saved[3], &hx = saved[4];
  const Tensor grad_update = grad_hy * (hx - fresh) * update * (1 - update);
  const Tensor grad_fresh = grad_hy * (1 - update) * (1 - fresh * fresh);
  const Tensor grad_reset = grad_fresh * hidden * reset * (1 - reset);
  const Tensor grad_input = at::cat({grad_reset, grad_update, grad_fresh}, 1);
  const Tensor grad_hidden = at::cat({grad_reset, grad_update, grad_fresh * reset}, 1);
  return {grad_input, grad_hidden, grad_hy * update, has_bias ? grad_input.sum(0) : Tensor(), has_bias ? grad_hidden.sum(0) : Tensor()};
}

}  // namespace

TORCH_LIBRARY_IMPL(aten, PrivateUse1, m) {
  m.impl("_thnn_fused_lstm_cell", lstm_cell);
  m.impl("_thnn_fused_lstm_cell_backward_impl", lstm_cell_backward);
  m.impl("_thnn_fused_gru_cell", gru_cell);
  m.impl("_thnn_fused_gru_cell_backward", gru_cell_backward);
}

}  // namespace openreg
