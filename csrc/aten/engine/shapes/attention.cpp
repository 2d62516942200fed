// Attention: scaled dot products on the CPU's flash kernel, and what the fast path of multi-head attention is made of.
#include "aten/engine/shapes/shape.h"

namespace openreg::engine::shapes {

namespace {

// (batch, heads, length, width) in memory as (batch, length, heads, width): how the kernel leaves gradients.
ResultMeta heads_inside(at::IntArrayRef sizes, c10::ScalarType dtype) {
  return strided(sizes, {sizes[2] * sizes[1] * sizes[3], sizes[3], sizes[1] * sizes[3], 1}, dtype);
}

bool fits(const at::Tensor& query, const at::Tensor& key, const at::Tensor& value) {
  if (query.dim() != 4 || key.dim() != 4 || value.dim() != 4 || query.numel() == 0 || key.numel() == 0) return false;
  return query.size(0) == key.size(0) && query.size(3) == key.size(3) && key.size(1) != 0 && query.size(1) % key.size(1) == 0 && key.sizes() == value.sizes();
}

bool mask_fits(const Arguments& in, size_t place, const at::Tensor& query, const at::Tensor& key) {
  if (!in.given(place)) return true;
  const at::IntArrayRef sizes = in.tensor(place).sizes();
  const Sizes full = {query.size(0), query.size(1), query.size(2), key.size(2)};
  if (sizes.size() != 2 && sizes.size() != 4) return false;
  for (size_t i = 0; i < sizes.size(); ++i) {
    const int64_t wanted = full[4 - sizes.size() + i];
    if (sizes[i] != wanted && sizes[i] != 1) return false;
  }
  return true;
}

c10::ScalarType sums_in(c10::ScalarType dtype) { return dtype == c10::ScalarType::Double ? dtype : c10::ScalarType::Float; }

bool attention(const Arguments& in, MemoEntry& entry) {
  const at::Tensor& query = in.tensor(0);
  if (!fits(query, in.tensor(1), in.tensor(2)) || !mask_fits(in, 5, query, in.tensor(1))) return false;
  const int64_t batch = query.size(0), heads = query.size(1), length = query.size(2);
  return give(entry, {like(query),
                      strided({batch, heads, length}, {length * heads, 1, heads}, sums_in(query.scalar_type()))});
}

bool attention_backward(const Arguments& in, MemoEntry& entry) {
  const at::Tensor& query = in.tensor(1);
  const at::Tensor& key = in.tensor(2);
  if (!fits(query, key, in.tensor(3)) || !mask_fits(in, 8, query, key) || in.tensor(0).sizes() != query.sizes()) return false;
  const auto dtype = query.scalar_type();
  return give(entry, {heads_inside(query.sizes(), dtype), heads_inside(key.sizes(), dtype), heads_inside(key.sizes(), dtype)});
}

// (projections of queries, keys and values side by side, their bias, heads)
bool split_heads(const Arguments& in, MemoEntry& entry) {
  const at::Tensor& qkv = in.tensor(0);
  const at::Tensor& bias = in.tensor(1);
  const int64_t heads = in.integer(2);
  if (qkv.dim() != 3 || qkv.numel() == 0 || heads <= 0 || qkv.size(2) % (3 * heads) != 0) return false;
  if (bias.dim() != 1 || bias.size(0) != qkv.size(2) || bias.scalar_type() != qkv.scalar_type()) return false;
  const ResultMeta part = contiguous({qkv.size(0), heads, qkv.size(1), qkv.size(2) / (3 * heads)}, qkv.scalar_type());
  return give(entry, {part, part, part});
}

// (scores, mask, dimension, kind of mask): a mask of the scores' sizes, or of each query's keys or each sequence's keys
bool masked_softmax(const Arguments& in, MemoEntry& entry) {
  const at::Tensor& input = in.tensor(0);
  const at::Tensor& mask = in.tensor(1);
  if (input.numel() == 0 || !input.is_contiguous() || mask.scalar_type() != c10::ScalarType::Bool || in.none(3)) return false;
  if (!in.none(2) && (in.integer(2) < -input.dim() || in.integer(2) >= input.dim())) return false;
  const int64_t kind = in.integer(3);
  const bool fits = kind == 2 ? mask.sizes() == input.sizes()
                              : input.dim() == 4 && mask.dim() == 2 && input.size(2) == input.size(3) && mask.size(1) == input.size(3) && mask.size(0) == input.size(kind == 0 ? 2 : 0);
  return fits && kind >= 0 && kind <= 2 && give(entry, {contiguous(input.sizes(), input.scalar_type())});
}

}  // namespace

at::ArrayRef<Rule> attention_rules() {
  static constexpr Rule rules[] = {
      {"_scaled_dot_product_flash_attention_for_cpu", attention},
      {"_scaled_dot_product_flash_attention_for_cpu_backward", attention_backward},
      {"_transform_bias_rescale_qkv", split_heads},
      {"_masked_softmax", masked_softmax},
  };
  return rules;
}

}  // namespace openreg::engine::shapes
