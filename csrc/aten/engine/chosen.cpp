// Telling what an index chose.
#include "aten/engine/chosen.h"

#include <ATen/ExpandUtils.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/broadcast_tensors.h>
#include <c10/core/InferenceMode.h>

#include <iterator>
#include <vector>

#include "runtime/sanitizer.h"

namespace openreg::engine {

namespace {

using layers::sanitizer::Footprint;

constexpr int64_t kMostParts = 4096;

struct Named {
  std::string_view name;
  Choice choice;
};

constexpr Named kNames[] = {
    {"index_select", Choice::slices},  {"index_copy_", Choice::slices},   {"index_add_", Choice::slices},     {"index_fill_", Choice::slices},
    {"index_reduce_", Choice::slices}, {"embedding", Choice::rows},       {"index", Choice::indices},         {"index_put_", Choice::indices},
    {"_index_put_impl_", Choice::indices}, {"gather", Choice::elements},  {"scatter_", Choice::elements},     {"scatter_add_", Choice::elements},
    {"scatter_reduce_", Choice::elements}, {"masked_fill_", Choice::mask}, {"masked_scatter_", Choice::mask}, {"masked_select", Choice::mask},
    {"put_", Choice::numbers},         {"take", Choice::numbers},         {"_embedding_bag", Choice::rows},   {"_embedding_bag_forward_only", Choice::rows},
};

class Teller {
 public:
  Teller(const at::Tensor& self, intptr_t delta) : self_(self), item_(static_cast<int64_t>(self.itemsize())), base_(reinterpret_cast<intptr_t>(self.const_data_ptr()) - delta) {}

  // The part at `offset` elements with the dimensions that `dims` lists.
  void add(int64_t offset, at::IntArrayRef sizes, at::IntArrayRef strides) {
    sets_.push_back(Footprint::elements(reinterpret_cast<const void*>(base_ + offset * item_), static_cast<uint64_t>(item_), static_cast<int>(sizes.size()),
                                        sizes.data(), strides.data()));
  }

  int64_t wrapped(int64_t index, int64_t dim) const { return index < 0 ? index + self_.size(dim) : index; }

  std::vector<Footprint>& sets() { return sets_; }

 private:
  const at::Tensor& self_;
  const int64_t item_;
  const intptr_t base_;
  std::vector<Footprint> sets_;
};

bool is_index(const at::Tensor& index) { return index.defined() && (index.scalar_type() == at::kLong || index.scalar_type() == at::kInt); }

// Makes a dimension positive; false for one that self does not have. The operator itself raises the error, later.
bool wrap_dim(const at::Tensor& self, int64_t* dim) {
  if (*dim < 0) *dim += self.dim();
  return *dim >= 0 && *dim < self.dim();
}

at::Tensor as_long(const at::Tensor& index) { return index.to(at::kLong).contiguous(); }

bool tell_slices(Teller& teller, const at::Tensor& self, int64_t dim, const at::Tensor& index) {
  if (!wrap_dim(self, &dim) || !is_index(index) || index.numel() > kMostParts) return false;
  std::vector<int64_t> sizes(self.sizes().begin(), self.sizes().end()), strides(self.strides().begin(), self.strides().end());
  sizes.erase(sizes.begin() + dim);
  strides.erase(strides.begin() + dim);
  const at::Tensor numbers = as_long(index);
  for (int64_t i = 0; i < numbers.numel(); ++i) teller.add(teller.wrapped(numbers.const_data_ptr<int64_t>()[i], dim) * self.stride(dim), sizes, strides);
  return true;
}

// self[i, :, j, ...]: an index tensor, a mask of one or more dimensions, or nothing, for each of the first dimensions.
bool tell_indices(Teller& teller, const at::Tensor& self, const c10::IValue& indices) {
  std::vector<at::Tensor> given;
  std::vector<int64_t> chosen, sizes, strides;  // dimensions with an index; those without
  int64_t dim = 0;
  const auto keep = [&] {
    sizes.push_back(self.size(dim));
    strides.push_back(self.stride(dim++));
  };
  for (const auto& element : indices.toListRef()) {
    const at::Tensor index = element.isNone() ? at::Tensor() : element.toTensor();
    const bool mask = index.defined() && (index.scalar_type() == at::kBool || index.scalar_type() == at::kByte);
    if (dim + (mask ? index.dim() : 1) > self.dim()) return false;
    if (!index.defined()) {
      keep();
    } else if (mask) {
      for (const at::Tensor& numbers : index.nonzero().unbind(1)) {
        given.push_back(numbers);
        chosen.push_back(dim++);
      }
    } else if (is_index(index)) {
      given.push_back(index);
      chosen.push_back(dim++);
    } else {
      return false;
    }
  }
  if (given.empty()) return false;
  while (dim < self.dim()) keep();
  given = at::broadcast_tensors(given);
  if (given[0].numel() > kMostParts) return false;
  for (at::Tensor& index : given) index = as_long(index);
  for (int64_t i = 0; i < given[0].numel(); ++i) {
    int64_t offset = 0;
    for (size_t d = 0; d < chosen.size(); ++d) offset += teller.wrapped(given[d].const_data_ptr<int64_t>()[i], chosen[d]) * self.stride(chosen[d]);
    teller.add(offset, sizes, strides);
  }
  return true;
}

bool tell_mask(Teller& teller, const at::Tensor& self, const at::Tensor& mask) {
  if (!mask.defined() || mask.dim() > self.dim()) return false;
  const at::Tensor places = mask.to(at::kBool).expand(self.sizes()).nonzero();
  if (places.size(0) > kMostParts) return false;
  for (int64_t i = 0; i < places.size(0); ++i) {
    int64_t offset = 0;
    for (int64_t d = 0; d < self.dim(); ++d) offset += places.const_data_ptr<int64_t>()[i * places.stride(0) + d * places.stride(1)] * self.stride(d);
    teller.add(offset, {}, {});
  }
  return true;
}

// Elements by their numbers, as if self were flat.
bool tell_numbers(Teller& teller, const at::Tensor& self, const at::Tensor& index) {
  if (!is_index(index) || index.numel() > kMostParts) return false;
  const at::Tensor numbers = as_long(index);
  for (int64_t i = 0; i < numbers.numel(); ++i) {
    int64_t rest = numbers.const_data_ptr<int64_t>()[i], offset = 0;
    if (rest < 0) rest += self.numel();
    if (rest < 0 || rest >= self.numel()) return false;
    for (int64_t d = self.dim(); d-- > 0; rest /= self.size(d)) offset += rest % self.size(d) * self.stride(d);
    teller.add(offset, {}, {});
  }
  return true;
}

bool tell_elements(Teller& teller, const at::Tensor& self, int64_t dim, const at::Tensor& index) {
  if (!wrap_dim(self, &dim) || !is_index(index) || self.dim() != index.dim() || index.numel() > kMostParts) return false;
  const at::Tensor numbers = as_long(index);
  std::vector<int64_t> place(static_cast<size_t>(self.dim()), 0);
  for (int64_t i = 0; i < numbers.numel(); ++i) {
    int64_t offset = 0, rest = i;
    for (int64_t d = self.dim(); d-- > 0;) {
      place[static_cast<size_t>(d)] = rest % numbers.size(d);
      rest /= numbers.size(d);
    }
    for (int64_t d = 0; d < self.dim(); ++d) {
      offset += (d == dim ? teller.wrapped(numbers.const_data_ptr<int64_t>()[i], d) : place[static_cast<size_t>(d)]) * self.stride(d);
    }
    teller.add(offset, {}, {});
  }
  return true;
}

}  // namespace

Choice choice_of(std::string_view name) {
  name.remove_prefix(name.find("::") + 2);
  name = name.substr(0, name.find('.'));
  for (const Named& named : kNames) {
    if (named.name == name) return named.choice;
  }
  return Choice::none;
}

void tell_chosen(Choice choice, const torch::jit::Stack& stack, intptr_t delta, uint64_t token) noexcept {
  bool told = false;
  try {
    const at::Tensor& self = stack[0].toTensor();
    Teller teller(self, delta);
    switch (choice) {
      case Choice::slices: told = tell_slices(teller, self, stack[1].toInt(), stack[2].toTensor()); break;
      case Choice::rows: told = tell_slices(teller, self, 0, stack[1].toTensor()); break;
      case Choice::indices: told = tell_indices(teller, self, stack[1]); break;
      case Choice::mask: told = tell_mask(teller, self, stack[1].toTensor()); break;
      case Choice::numbers: told = tell_numbers(teller, self, stack[1].toTensor()); break;
      case Choice::elements: told = tell_elements(teller, self, stack[1].toInt(), stack[2].toTensor()); break;
      default: break;
    }
    if (told) layers::sanitizer::touched(token, std::move(teller.sets()));
  } catch (const std::exception&) {  // an index that is no index: the operator itself says so
    told = false;
  }
  if (!told) layers::sanitizer::untold(token);
}

}  // namespace openreg::engine
