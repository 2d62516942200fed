// The list of layers.
#include "layers/layer.h"

#include "layers/faults/faults.h"
#include "layers/sanitizer/sanitizer.h"

namespace openreg::layers {

namespace {
constexpr Layer kLayers[] = {{"sanitizer", sanitizer::stack}, {"faults", faults::stack}};
}

const Layer* find_layer(const char* name) {
  for (const Layer& layer : kLayers) {
    if (std::strcmp(layer.name, name) == 0) return &layer;
  }
  return nullptr;
}

const char* layer_names() { return "sanitizer, faults"; }

}  // namespace openreg::layers
