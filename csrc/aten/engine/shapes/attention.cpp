// Scaled dot product attention on the CPU's flash kernel.
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

}  // namespace

at::ArrayRef<Rule> attention_rules() {
  static constexpr Rule rules[] = {
      {"_scaled_dot_product_flash_attention_for_cpu", attention},
      {"_scaled_dot_product_flash_attention_for_cpu_backward", attention_backward},
  };
  return rules;
}

}  // namespace openreg::engine::shapes
