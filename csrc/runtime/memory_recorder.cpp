// Settings, traces and annotations of memory history.
#include "runtime/memory_recorder.h"

#include <ATen/record_function.h>

#include <array>
#include <cstring>
#include <deque>
#include <mutex>
#include <optional>
#include <utility>

#include "runtime/device.h"

namespace openreg {

namespace {

using c10::CachingDeviceAllocator::AnnotationEntry;
using c10::CachingDeviceAllocator::RecordContext;
using c10::CachingDeviceAllocator::TraceEntry;

thread_local std::vector<std::string> compiled_regions;  // that the thread is in, outermost first
thread_local std::string metadata;

// Entries are destroyed without the mutex where many go at once.
class Recorder final : public MemoryRecorder {
 public:
  MemoryContext gather(RecordContext level) noexcept override {
    if (level > stacks_.load(std::memory_order_relaxed)) return nullptr;
    try {
      return source_.load(std::memory_order_relaxed)();
    } catch (...) {  // no memory for a stack: the event goes without
      return nullptr;
    }
  }

  void record(const MemoryEvent& event, const MemoryContext& context) noexcept override {
    std::lock_guard<std::mutex> lock(mutex_);
    if (!wanted(event)) return;
    const bool with_stack = settings_.stacks >= RecordContext::ALLOC;
    auto& trace = traces_[static_cast<size_t>(event.device)];
    try {
      trace.emplace_back(event.action, event.device, event.address, event.bytes, reinterpret_cast<void*>(event.stream), event.pool,
                         c10::getApproximateTime(), with_stack ? context : nullptr,
                         compiled_regions.empty() ? std::string() : compiled_regions.back(), metadata);
    } catch (const std::bad_alloc&) {  // an entry that host memory has no room for is missing from the trace
    }
    if (trace.size() > settings_.max_entries) trace.pop_front();
  }

  void annotate(const char* name, const char* stage) {
    AnnotationEntry entry(current_device(), c10::getApproximateTime());
    entry.recordUserMetadata("name", name);
    entry.recordUserMetadata("stage", stage);
    std::lock_guard<std::mutex> lock(mutex_);
    if (settings_.max_entries == 0) return;
    annotations_.push_back(std::move(entry));
    if (annotations_.size() > settings_.max_entries) annotations_.pop_front();
  }

  void start(const HistorySettings& settings, bool clear) {
    if (clear) forget();
    std::lock_guard<std::mutex> lock(mutex_);
    if (settings.annotations_of_all_threads != settings_.annotations_of_all_threads) remove(annotation_callback_);
    if (!settings.compile_context) remove(region_callback_);
    settings_ = settings;
    for (auto& trace : traces_) shorten(trace);
    shorten(annotations_);
    source_.store(settings.source, std::memory_order_relaxed);
    stacks_.store(settings.stacks, std::memory_order_relaxed);
    if (!annotation_callback_) annotation_callback_ = add_annotation_callback(settings.annotations_of_all_threads);
    if (settings.compile_context && !region_callback_) region_callback_ = add_region_callback();
    memory_recorder.store(this, std::memory_order_release);
  }

  void stop() {
    {
      std::lock_guard<std::mutex> lock(mutex_);
      memory_recorder.store(nullptr, std::memory_order_release);
      stacks_.store(RecordContext::NEVER, std::memory_order_relaxed);
      settings_ = {};
      remove(annotation_callback_);
      remove(region_callback_);
    }
    forget();
  }

  std::vector<TraceEntry> trace(c10::DeviceIndex device) {
    std::lock_guard<std::mutex> lock(mutex_);
    const auto& trace = traces_[static_cast<size_t>(device)];
    return {trace.begin(), trace.end()};
  }
  auto clock() { return clock_.makeConverter(); }
  std::vector<AnnotationEntry> annotations() {
    std::lock_guard<std::mutex> lock(mutex_);
    return {annotations_.begin(), annotations_.end()};
  }

 private:
  bool wanted(const MemoryEvent& event) const {
    return settings_.max_entries != 0 && (settings_.devices >> event.device & 1) != 0 &&
           (settings_.skipped_actions >> static_cast<int>(event.action) & 1) == 0;
  }

  template <class Entry>
  void shorten(std::deque<Entry>& entries) const {
    while (entries.size() > settings_.max_entries) entries.pop_front();
  }

  void forget() {
    std::array<std::deque<TraceEntry>, kMaxDevices> traces;
    std::deque<AnnotationEntry> annotations;
    std::lock_guard<std::mutex> lock(mutex_);
    traces_.swap(traces);
    annotations_.swap(annotations);
  }

  static void remove(std::optional<at::CallbackHandle>& callback) {
    if (callback) at::removeCallback(*callback);
    callback.reset();
  }

  static at::CallbackHandle add_annotation_callback(bool all_threads);
  static at::CallbackHandle add_region_callback();

  c10::ApproximateClockToUnixTimeConverter clock_;  // compares the clocks now, and again at each use
  std::atomic<RecordContext> stacks_{RecordContext::NEVER};
  std::atomic<CallSiteSource> source_{nullptr};
  std::mutex mutex_;  // LOCK: everything below; a leaf, taken under a heap's mutex
  HistorySettings settings_;
  std::array<std::deque<TraceEntry>, kMaxDevices> traces_;
  std::deque<AnnotationEntry> annotations_;
  std::optional<at::CallbackHandle> annotation_callback_, region_callback_;
};

Recorder& recorder() {
  static Recorder* leaked = new Recorder;
  return *leaked;
}

at::CallbackHandle Recorder::add_annotation_callback(bool all_threads) {
  at::RecordFunctionCallback callback(
      [](const at::RecordFunction& function) -> std::unique_ptr<at::ObserverContext> {
        recorder().annotate(function.name(), "START");
        return nullptr;
      },
      [](const at::RecordFunction& function, at::ObserverContext*) { recorder().annotate(function.name(), "END"); });
  callback.scopes({at::RecordScope::USER_SCOPE});
  return all_threads ? at::addGlobalCallback(std::move(callback)) : at::addThreadLocalCallback(std::move(callback));
}

at::CallbackHandle Recorder::add_region_callback() {
  static constexpr auto is_region = [](const at::RecordFunction& function) {
    constexpr char kPrefix[] = "Torch-Compiled Region";
    return std::strncmp(function.name(), kPrefix, sizeof(kPrefix) - 1) == 0;
  };
  at::RecordFunctionCallback callback(
      [](const at::RecordFunction& function) -> std::unique_ptr<at::ObserverContext> {
        if (is_region(function)) compiled_regions.emplace_back(function.name());
        return nullptr;
      },
      [](const at::RecordFunction& function, at::ObserverContext*) {
        if (is_region(function) && !compiled_regions.empty()) compiled_regions.pop_back();
      });
  callback.scopes({at::RecordScope::FUNCTION});
  return at::addGlobalCallback(std::move(callback));
}

}  // namespace

void start_memory_history(const HistorySettings& settings, bool clear) { recorder().start(settings, clear); }
void stop_memory_history() { recorder().stop(); }
void set_memory_metadata(std::string text) { metadata = std::move(text); }
std::string memory_metadata() { return metadata; }
std::vector<TraceEntry> recorded_trace(c10::DeviceIndex device) { return recorder().trace(device); }
std::vector<AnnotationEntry> recorded_annotations() { return recorder().annotations(); }
std::function<c10::time_t(c10::approx_time_t)> recorded_clock() { return recorder().clock(); }

}  // namespace openreg
