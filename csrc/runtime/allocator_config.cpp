// Reading settings: torch's parser first, then our keys.
#include "runtime/allocator_config.h"

#include <c10/core/AllocatorConfig.h>
#include <c10/util/Exception.h>

#include <algorithm>
#include <atomic>
#include <bit>
#include <cstdlib>
#include <functional>
#include <mutex>
#include <unordered_set>

#include "runtime/device_block.h"

namespace openreg {

namespace {

using c10::CachingAllocator::AcceleratorAllocatorConfig;
using c10::CachingAllocator::ConfigTokenizer;

constexpr AllocatorSetting kTorchSettings[] = {
    {"expandable_segments", "False", "segments that grow: addresses are reserved, memory is mapped behind them as it is needed"},
    {"max_split_size_mb", "no limit", "blocks of this size and more are not split, at least 20"},
    {"max_non_split_rounding_mb", "20", "how much larger than the request a block of at least max_split_size_mb may be"},
    {"large_segment_size_mb", "the request", "the segment for requests of 1 MiB to 10 MiB"},
    {"roundup_power2_divisions", "off", "rounds requests up to one of this many steps between powers of two; a number, or a list "
                                        "[256:1,512:2,>:4] by request size in MiB"},
    {"garbage_collection_threshold", "off", "above this part of the limit, cached segments are given back before a new one is made, the "
                                            "longest unused first"},
    {"pinned_use_background_threads", "False", "a thread looks for pinned blocks that streams have finished with"},
    {"pinned_max_round_threshold_mb", "no limit", "above it, pinned requests are not rounded up to a power of two"},
    {"pinned_max_cached_size_mb", "no limit", "above it, freed pinned blocks are given back at once"},
};
constexpr AllocatorSetting kOwnSettings[] = {
    {"per_process_memory_fraction", "1.0", "as torch.openreg.set_per_process_memory_fraction, for every device at its first use"},
    {"backend", "native", "native is the only one"},
};
// Keys of cuda's allocator that say how to call CUDA. A program that has them runs here unchanged.
constexpr const char* kIgnored[] = {"release_lock_on_cudamalloc",        "pinned_use_cuda_host_register", "pinned_num_register_threads",
                                    "graph_capture_record_stream_reuse", "pinned_reserve_segment_size_mb", "throw_on_cudamalloc_oom"};

std::atomic<const AllocatorConfig*> current{nullptr};
std::mutex first_use;  // LOCK: reading the environment

// The settings in force, as strings to go back to when others are refused.
struct Accepted {
  std::mutex mutex;  // LOCK: everything below
  bool any = false;
  std::string kept;  // of the keys that torch keeps until another string names them
  std::string last;  // the string itself, for the others
};

Accepted& accepted() {
  static Accepted* leaked = new Accepted;
  return *leaked;
}

std::string kept_settings() {
  using Config = AcceleratorAllocatorConfig;
  const auto mib = [](size_t bytes) { return std::to_string(bytes >> 20); };  // no limit becomes one that no request reaches
  const auto truth = [](bool value) { return value ? "True" : "False"; };
  return c10::str("large_segment_size_mb:", mib(Config::large_segment_size()), ",max_non_split_rounding_mb:",
                  mib(Config::max_non_split_rounding_size()), ",expandable_segments:", truth(Config::use_expandable_segments()),
                  ",pinned_use_background_threads:", truth(Config::pinned_use_background_threads()), ",pinned_max_round_threshold_mb:",
                  mib(Config::pinned_max_round_threshold()), ",pinned_max_cached_size_mb:", mib(Config::pinned_max_cached_size()));
}

// Gives torch the settings in force again.
void restore() {
  std::string kept, last;
  {
    std::lock_guard<std::mutex> lock(accepted().mutex);
    if (!accepted().any) return;
    kept = accepted().kept;
    last = accepted().last;
  }
  AcceleratorAllocatorConfig::instance().parseArgs(kept);
  AcceleratorAllocatorConfig::instance().parseArgs(last);
}

bool is_torch_key(const std::string& key) {
  return std::any_of(std::begin(kTorchSettings), std::end(kTorchSettings), [&](const auto& setting) { return key == setting.key; });
}

double fraction_at(const ConfigTokenizer& tokens, size_t i) {
  double fraction = -1;
  try {
    fraction = tokens.toDouble(i);
  } catch (const std::exception&) {
  }
  TORCH_CHECK_VALUE(fraction > 0 && fraction <= 1, "The allocator setting per_process_memory_fraction is '", tokens[i],
                    "', which is not a number above 0 and at most 1.");
  return fraction;
}

// Called after torch has parsed the same string.
AllocatorConfig read_settings(const std::string& settings) {
  AllocatorConfig config;
  const AllocatorConfig* before = current.load(std::memory_order_acquire);
  if (before != nullptr && before->large_segment_bytes != 0) config.large_segment_bytes = AcceleratorAllocatorConfig::large_segment_size();
  config.max_split_bytes = AcceleratorAllocatorConfig::max_split_size();
  config.max_non_split_rounding_bytes = AcceleratorAllocatorConfig::max_non_split_rounding_size();
  config.garbage_collection_threshold = AcceleratorAllocatorConfig::garbage_collection_threshold();
  config.expandable_segments = AcceleratorAllocatorConfig::use_expandable_segments();
  const std::vector<size_t>& divisions = AcceleratorAllocatorConfig::roundup_power2_divisions();
  if (std::any_of(divisions.begin(), divisions.end(), [](size_t count) { return count > 1; })) config.roundup_divisions = divisions;

  const ConfigTokenizer tokens(settings);
  for (size_t i = 0; i < tokens.size(); ++i) {
    const std::string& key = tokens[i];
    if (key == "large_segment_size_mb") {
      config.large_segment_bytes = AcceleratorAllocatorConfig::large_segment_size();
    } else if (key == "per_process_memory_fraction") {
      config.memory_fraction = fraction_at(tokens, tokens.skipKey(i));
    } else if (key == "backend") {
      const std::string& backend = tokens[tokens.skipKey(i)];
      TORCH_CHECK_VALUE(backend == "native", "The allocator setting backend is '", backend, "'; openreg has only the backend 'native'.");
    } else if (!is_torch_key(key)) {
      TORCH_CHECK_VALUE(std::find(std::begin(kIgnored), std::end(kIgnored), key) != std::end(kIgnored), "'", key,
                        "' is no setting of the openreg allocator (docs/memory.md lists the settings).");
    }
    i = tokens.skipKey(i);
    if (++i < tokens.size()) {
      TORCH_CHECK_VALUE(tokens[i] == ",", "The allocator settings '", settings, "' have '", tokens[i], "' where a comma is due.");
    }
  }
  return config;
}

void adopt(const std::string& settings) {
  current.store(new AllocatorConfig(read_settings(settings)), std::memory_order_release);
  std::lock_guard<std::mutex> lock(accepted().mutex);
  accepted().any = true;
  accepted().kept = kept_settings();
  accepted().last = settings;
}

[[noreturn]] void refuse_environment(const char* settings, const char* reason) {
  TORCH_CHECK_VALUE(false, "The environment variable OPENREG_ALLOC_CONF='", settings, "' cannot be understood: ", reason);
}

const AllocatorConfig& read_environment() {
  std::lock_guard<std::mutex> lock(first_use);
  if (current.load(std::memory_order_acquire) == nullptr) {
    const char* own = std::getenv("OPENREG_ALLOC_CONF");
    if (own != nullptr) {
      try {
        c10::CachingAllocator::setAllocatorSettings(own);
      } catch (const c10::Error& error) {
        refuse_environment(own, error.what_without_backtrace());
      } catch (const std::exception& error) {
        refuse_environment(own, error.what());
      }
    } else {
      adopt(c10::CachingAllocator::getAllocatorSettings());
    }
  }
  return *current.load(std::memory_order_acquire);
}

std::atomic<bool>& caching() {
  static std::atomic<bool> enabled = [] {
    const char* off = std::getenv("OPENREG_NO_MEMORY_CACHING");
    return off == nullptr || std::string(off) != "1";
  }();
  return enabled;
}

}  // namespace

uint64_t AllocatorConfig::rounded(uint64_t bytes) const {
  if (!roundup_divisions.empty()) {
    const size_t power = static_cast<size_t>(std::bit_width(bytes)) - 1;
    const uint64_t divisions = roundup_divisions[power <= 20 ? 0 : std::min(power - 20, roundup_divisions.size() - 1)];
    if (divisions > 1 && bytes > kBlockAlignment * divisions) {
      const uint64_t step = std::bit_floor(bytes) / divisions;
      bytes = (bytes + step - 1) / step * step;
    }
  }
  return (bytes + kBlockAlignment - 1) / kBlockAlignment * kBlockAlignment;
}

std::vector<AllocatorSetting> allocator_settings() {
  std::vector<AllocatorSetting> all(std::begin(kTorchSettings), std::end(kTorchSettings));
  all.insert(all.end(), std::begin(kOwnSettings), std::end(kOwnSettings));
  return all;
}

// Another backend's hook and keys stay in force beside ours.
void register_allocator_config() {
  std::unordered_set<std::string>& keys = AcceleratorAllocatorConfig::getMutableKeys();
  for (const AllocatorSetting& setting : kOwnSettings) keys.insert(setting.key);
  for (const char* key : kIgnored) keys.insert(key);
  std::function<void(const std::string&)>& hook = AcceleratorAllocatorConfig::getConfigParserHook();
  hook = [before = std::move(hook)](const std::string& settings) {
    try {
      if (before) before(settings);
      adopt(settings);
    } catch (...) {
      restore();
      throw;
    }
  };
}

void set_allocator_settings(const std::string& settings) {
  allocator_config();  // so that there are settings to go back to
  try {
    c10::CachingAllocator::setAllocatorSettings(settings);
  } catch (...) {  // torch refuses a key of its own without the hook
    restore();
    throw;
  }
}

const AllocatorConfig& allocator_config() {
  const AllocatorConfig* config = current.load(std::memory_order_acquire);
  return C10_LIKELY(config != nullptr) ? *config : read_environment();
}

bool memory_caching() noexcept { return caching().load(std::memory_order_relaxed); }
void set_memory_caching(bool enabled) noexcept { caching().store(enabled, std::memory_order_relaxed); }

}  // namespace openreg
