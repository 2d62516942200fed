// A driver for the tests that is another driver with one layer around it, and a flat C interface to what the layer found or did.
// OPENREG_TEST_BELOW is the path of the driver below, OPENREG_TEST_LAYER the layer: the sanitizer unless it says otherwise.
#include <dlfcn.h>

#include <cstdlib>
#include <string>

#include "layers/faults/faults.h"
#include "layers/layer.h"
#include "layers/sanitizer/sanitizer.h"

using namespace openreg::layers;

namespace {

std::string text_of(const std::vector<sanitizer::Finding>& findings) {
  std::string text;
  for (const auto& finding : findings) {
    text += std::string(sanitizer::name_of(finding.mode)) + "|" + finding.sentence;
    for (const auto& access : finding.accesses) text += "|" + access.name + "@" + access.stream + ":" + access.touched + "#" + std::to_string(access.tag);
    text += "|" + finding.allocation + "|" + finding.remedy + "\n";
  }
  return text;
}

const char* keep(std::string text) {
  static std::string kept;
  kept = std::move(text);
  return kept.c_str();
}

}  // namespace

extern "C" {

__attribute__((visibility("default"))) openreg_status openreg_get_driver(uint32_t major, const openreg_driver** table) {
  void* library = dlopen(std::getenv("OPENREG_TEST_BELOW"), RTLD_NOW | RTLD_LOCAL);
  if (library == nullptr) return OPENREG_INTERNAL;
  const openreg_driver* below = nullptr;
  const openreg_status status = reinterpret_cast<openreg_get_driver_fn>(dlsym(library, OPENREG_GET_DRIVER_SYMBOL))(major, &below);
  const char* layer = std::getenv("OPENREG_TEST_LAYER");
  if (status == OPENREG_OK) *table = find_layer(layer != nullptr ? layer : "sanitizer")->stack(below);
  return status;
}

__attribute__((visibility("default"))) void sanitize(uint32_t modes) { sanitizer::set_modes(modes); }
__attribute__((visibility("default"))) const char* findings() { return keep(text_of(sanitizer::take_findings())); }
__attribute__((visibility("default"))) const char* possible() { return keep(text_of(sanitizer::possible_findings())); }
__attribute__((visibility("default"))) uint64_t new_token() { return sanitizer::new_token(); }
__attribute__((visibility("default"))) void touched(uint64_t token, const void* base, uint64_t bytes) {
  sanitizer::touched(token, {sanitizer::Footprint::bytes(base, bytes)});
}
__attribute__((visibility("default"))) void untold(uint64_t token) { sanitizer::untold(token); }
__attribute__((visibility("default"))) uint64_t open_promises() { return sanitizer::open_promises(); }
__attribute__((visibility("default"))) uint64_t new_mark(openreg_stream stream) { return sanitizer::new_mark(stream); }
__attribute__((visibility("default"))) void reached(uint64_t mark) { sanitizer::reached(mark); }
__attribute__((visibility("default"))) openreg_status poison(const openreg_driver* table, openreg_stream stream, void* address, uint64_t bytes) {
  return sanitizer::poison(*table, stream, address, bytes);
}
__attribute__((visibility("default"))) void check_guards() { sanitizer::check_guards(); }
__attribute__((visibility("default"))) void host_access(const void* base, uint64_t bytes, int write) {
  sanitizer::host_access("host", sanitizer::Footprint::bytes(base, bytes), write != 0, nullptr, 0);
}
__attribute__((visibility("default"))) void wait_unobserved(const openreg_driver* table, openreg_stream stream) {
  const sanitizer::Unobserved unobserved;
  table->stream_synchronize(stream, UINT64_MAX, nullptr);
}
__attribute__((visibility("default"))) void expect_runtime_blocks(int expected) { sanitizer::expect_runtime_blocks(expected != 0); }
__attribute__((visibility("default"))) void block_allocated(openreg_stream stream, void* address, uint64_t size, uint64_t requested) {
  sanitizer::block_allocated(stream, address, size, requested, 0, false);
}
__attribute__((visibility("default"))) void block_ends(void* address) { sanitizer::block_ends(address); }
__attribute__((visibility("default"))) void block_freed(void* address) { sanitizer::block_freed(address, 0); }
__attribute__((visibility("default"))) void block_used_by(void* address, openreg_stream stream) { sanitizer::block_used_by(address, stream); }
__attribute__((visibility("default"))) void block_idle(void* address) { sanitizer::block_idle(address); }

// Begins a fault plan for devices 0 and 1 and returns its name; 0 and a position and a problem when it is none.
__attribute__((visibility("default"))) uint64_t begin_plan(const char* text, uint64_t* position, const char** problem) {
  faults::ParseError error{};
  auto plan = faults::parse(text, {0, 1}, &error);
  if (plan) return faults::begin(*std::move(plan));
  *position = error.position;
  *problem = keep(error.problem);
  return 0;
}
__attribute__((visibility("default"))) void end_plan(uint64_t plan) { faults::end(plan); }
__attribute__((visibility("default"))) const char* fired(uint64_t plan) {
  std::string text;
  for (const auto& fault : faults::report(plan).fired)
    text += fault.rule + "|" + fault.call + "|" + std::to_string(fault.device) + "|" + std::to_string(fault.number) + "\n";
  return keep(text);
}
__attribute__((visibility("default"))) const char* waiting(uint64_t plan) {
  std::string text;
  for (const auto& rule : faults::report(plan).waiting) text += rule + "\n";
  return keep(text);
}

// Whether two strided sets share an element of one byte: 0 no, 1 yes, 2 unknown.
__attribute__((visibility("default"))) int overlap(uint64_t a, uint32_t a_bytes, int a_dims, const int64_t* a_sizes, const int64_t* a_strides, uint64_t b,
                                                   uint32_t b_bytes, int b_dims, const int64_t* b_sizes, const int64_t* b_strides) {
  return static_cast<int>(sanitizer::overlap(sanitizer::Footprint::elements(reinterpret_cast<void*>(a), a_bytes, a_dims, a_sizes, a_strides),
                                             sanitizer::Footprint::elements(reinterpret_cast<void*>(b), b_bytes, b_dims, b_sizes, b_strides)));
}

}  // extern "C"
