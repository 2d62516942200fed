// Memory history: stacks of the calling thread, and snapshots as the dictionaries that PyTorch's memory viewer reads.
#include <c10/core/AllocatorConfig.h>
#include <torch/csrc/Exceptions.h>
#include <torch/csrc/profiler/combined_traceback.h>

#include <array>
#include <optional>
#include <string>
#include <unordered_map>
#include <utility>

#include "python/module.h"
#include "runtime/allocator_config.h"
#include "runtime/device.h"
#include "runtime/memory_recorder.h"
#include "runtime/memory_snapshot.h"

namespace py = pybind11;

namespace openreg::python {

namespace {

using c10::CachingDeviceAllocator::AnnotationEntry;
using c10::CachingDeviceAllocator::BlockInfo;
using c10::CachingDeviceAllocator::RecordContext;
using c10::CachingDeviceAllocator::SegmentInfo;
using c10::CachingDeviceAllocator::TraceEntry;
using torch::CapturedTraceback;

// In the order of TraceEntry::Action.
constexpr std::array<const char*, 9> kActions = {"alloc",       "free_requested", "free_completed", "segment_alloc", "segment_free",
                                                 "segment_map", "segment_unmap",  "snapshot",       "oom"};
static_assert(TraceEntry::ALLOC == 0 && TraceEntry::SEGMENT_ALLOC == 3 && TraceEntry::SNAPSHOT == 7 && TraceEntry::OOM == 8);

std::string as_text(PyObject* word) {
  const char* utf8 = PyUnicode_AsUTF8(word);
  if (utf8 == nullptr) PyErr_Clear();
  return utf8 == nullptr ? "?" : utf8;
}

// The innermost line outside of torch's own Python, else the innermost line; "" outside of Python.
std::string python_line() {
  std::string innermost;
  auto frame = py::reinterpret_borrow<py::object>(reinterpret_cast<PyObject*>(PyEval_GetFrame()));
  while (frame) {
    auto* fields = reinterpret_cast<PyFrameObject*>(frame.ptr());
    const auto code = py::reinterpret_steal<py::object>(reinterpret_cast<PyObject*>(PyFrame_GetCode(fields)));
    const auto* names = reinterpret_cast<PyCodeObject*>(code.ptr());
    const std::string file = as_text(names->co_filename);
    const bool of_torch = file.find("/torch/") != std::string::npos;
    if (!of_torch || innermost.empty()) {
      const std::string line = file + ":" + std::to_string(PyFrame_GetLineNumber(fields)) + " in " + as_text(names->co_name);
      if (!of_torch) return line;
      innermost = line;
    }
    frame = py::reinterpret_steal<py::object>(reinterpret_cast<PyObject*>(PyFrame_GetBack(fields)));
  }
  return innermost;
}

// Threads that never ran Python have no Python stack, and are not made to wait for the GIL.
template <bool kCpp>
std::shared_ptr<CallSite> call_site() {
  auto site = std::make_shared<CallSite>();
  if (!Py_IsInitialized() || PyGILState_GetThisThreadState() == nullptr) {
    site->stack = CapturedTraceback::gather(false, false, kCpp);
    return site;
  }
  py::gil_scoped_acquire gil;
  site->stack = CapturedTraceback::gather(true, true, kCpp);
  site->python_line = python_line();
  return site;
}

void start_history(int stacks, bool cpp_stacks, uint64_t max_entries, const std::vector<std::string>& skipped_actions,
                   std::optional<int> device, bool clear, bool compile_context, bool annotations_of_all_threads) {
  HistorySettings settings;
  settings.stacks = static_cast<RecordContext>(stacks);
  settings.source = cpp_stacks ? call_site<true> : call_site<false>;
  settings.max_entries = max_entries;
  for (size_t action = 0; action < kActions.size(); ++action) {
    for (const std::string& skipped : skipped_actions) {
      if (skipped == kActions[action]) settings.skipped_actions |= uint32_t{1} << action;
    }
  }
  if (device) settings.devices = uint64_t{1} << device_index(*device);
  settings.compile_context = compile_context;
  settings.annotations_of_all_threads = annotations_of_all_threads;
  if (cpp_stacks) torch::unwind::unwind();  // reads the unwind tables now rather than at the first allocation
  start_memory_history(settings, clear);
}

CapturedTraceback* traceback_of(const MemoryContext& context) {
  const auto* site = static_cast<const CallSite*>(context.get());
  return site == nullptr || site->stack == nullptr ? nullptr : torch::getCapturedTracebackFromContext(site->stack);
}

// One list of frames per stack, innermost frame first. Equal stacks share their list, so that a pickle has it once.
std::vector<py::list> resolve(const std::vector<CapturedTraceback*>& stacks) {
  std::unordered_map<CapturedTraceback*, size_t> place;
  std::vector<CapturedTraceback*> distinct;
  for (CapturedTraceback* stack : stacks) {
    if (place.emplace(stack, distinct.size()).second) distinct.push_back(stack);
  }
  const torch::SymbolizedTracebacks symbols = torch::symbolize(distinct);
  std::vector<py::dict> frames;
  for (const auto& frame : symbols.all_frames) {
    py::dict entry;
    entry["name"] = frame.funcname;
    entry["filename"] = frame.filename;
    entry["line"] = frame.lineno;
    frames.push_back(std::move(entry));
  }
  std::vector<py::list> lists;
  for (const auto& indices : symbols.tracebacks) {
    py::list list;
    for (const uint64_t index : indices) list.append(frames[index]);
    lists.push_back(std::move(list));
  }
  std::vector<py::list> result;
  for (CapturedTraceback* stack : stacks) result.push_back(lists[place.at(stack)]);
  return result;
}

// Collects the stacks of all dictionaries and resolves them in one go, because resolving C++ frames is slow to start.
class Frames {
 public:
  // Gives `entry` its frames later; entries without a stack get an empty list, unless `omit_empty`.
  void add(const py::dict& entry, const MemoryContext& context, bool omit_empty = false) {
    CapturedTraceback* stack = traceback_of(context);
    if (stack != nullptr) {
      stacks_.push_back(stack);
      entries_.push_back(entry);
    } else if (!omit_empty) {
      entry["frames"] = py::list();
    }
  }

  void fill_in() {
    const std::vector<py::list> frames = resolve(stacks_);
    for (size_t i = 0; i < frames.size(); ++i) {
      entries_[i]["frames"] = frames[i];
      const auto& forward = stacks_[i]->forward_traceback();
      if (forward && !forward->empty()) entries_[i]["forward_frames"] = py::cast(*forward);
    }
  }

 private:
  std::vector<CapturedTraceback*> stacks_;  // the snapshot owns them
  std::vector<py::dict> entries_;
};

py::dict as_dict(const SegmentInfo& segment, Frames& frames) {
  py::dict result;
  result["device"] = static_cast<int>(segment.device);
  result["address"] = segment.address;
  result["total_size"] = segment.total_size;
  result["allocated_size"] = segment.allocated_size;
  result["active_size"] = segment.active_size;
  result["requested_size"] = segment.requested_size;
  result["stream"] = reinterpret_cast<int64_t>(segment.stream);
  result["segment_type"] = segment.is_large ? "large" : "small";
  result["segment_pool_id"] = segment.owner_private_pool_id;
  result["is_expandable"] = segment.is_expandable;
  frames.add(result, segment.context_when_allocated);
  size_t address = segment.address;
  py::list blocks;
  for (const BlockInfo& block : segment.blocks) {
    py::dict entry;
    entry["address"] = address;
    entry["size"] = block.size;
    entry["requested_size"] = block.requested_size;
    entry["state"] = block.allocated ? "active_allocated" : block.active ? "active_pending_free" : "inactive";
    frames.add(entry, block.context_when_allocated);
    blocks.append(entry);
    address += block.size;
  }
  result["blocks"] = blocks;
  return result;
}

py::dict as_dict(const TraceEntry& entry, Frames& frames) {
  py::dict result;
  frames.add(result, entry.context_, /*omit_empty=*/true);
  result["action"] = kActions[static_cast<size_t>(entry.action_)];
  result[entry.action_ == TraceEntry::OOM ? "device_free" : "addr"] = entry.addr_;
  result["size"] = entry.size_;
  result["stream"] = reinterpret_cast<int64_t>(entry.stream_);
  result["time_us"] = entry.time_.t_;
  result["compile_context"] = entry.compile_context_;
  result["user_metadata"] = entry.user_metadata_;
  result["pool_id"] = entry.mempool_;
  return result;
}

py::dict as_dict(const AnnotationEntry& annotation) {
  py::dict result;
  for (const auto& [name, value] : annotation.metadata_) result[py::str(name)] = value;
  result["device"] = static_cast<int>(annotation.device_);
  result["time_us"] = annotation.time_.t_;
  return result;
}

py::dict settings_now() {
  const AllocatorConfig& config = allocator_config();
  py::dict result, divisions;
  uint64_t size = 1;  // MiB
  for (const size_t count : config.roundup_divisions) {
    divisions[py::str(std::to_string(size))] = count;
    size *= 2;
  }
  result["PYTORCH_CUDA_ALLOC_CONF"] = c10::CachingAllocator::AcceleratorAllocatorConfig::last_allocator_settings();
  result["max_split_size"] = static_cast<int64_t>(config.max_split_bytes);  // no limit is -1, as on cuda
  result["garbage_collection_threshold"] = config.garbage_collection_threshold;
  result["expandable_segments"] = config.expandable_segments;
  result["roundup_power2_divisions"] = divisions;
  return result;
}

py::dict snapshot(std::optional<int> device, bool with_traces) {
  MemorySnapshot taken;
  {
    py::gil_scoped_release no_gil;
    std::optional<c10::DeviceIndex> index;
    if (device) index = device_index(*device);
    taken = memory_snapshot(index, with_traces);
  }
  Frames frames;
  py::list segments, traces, annotations;
  for (const SegmentInfo& segment : taken.segments) segments.append(as_dict(segment, frames));
  for (const auto& trace : taken.device_traces) {
    py::list entries;
    for (const TraceEntry& entry : trace) entries.append(as_dict(entry, frames));
    traces.append(entries);
  }
  for (const AnnotationEntry& annotation : taken.annotations) annotations.append(as_dict(annotation));
  frames.fill_in();
  py::dict result;
  result["segments"] = segments;
  result["device_traces"] = traces;
  result["allocator_settings"] = settings_now();
  result["external_annotations"] = annotations;
  return result;
}

py::object allocation_traceback(uintptr_t address) {
  const MemoryContext context = allocation_context(reinterpret_cast<const void*>(address));
  CapturedTraceback* stack = traceback_of(context);
  return stack == nullptr ? py::object(py::none()) : py::object(resolve({stack}).at(0));
}

}  // namespace

void bind_memory_history(py::module_& m) {
  using torch::wrap_pybind_function;
  m.def("start_memory_history", wrap_pybind_function(start_history), py::arg("stacks"), py::arg("cpp_stacks"), py::arg("max_entries"),
        py::arg("skipped_actions"), py::arg("device"), py::arg("clear"), py::arg("compile_context"), py::arg("annotations_of_all_threads"));
  m.def("stop_memory_history", wrap_pybind_function(stop_memory_history));
  m.def("memory_snapshot", wrap_pybind_function(snapshot), py::arg("device"), py::arg("with_traces"));
  m.def("allocation_traceback", wrap_pybind_function(allocation_traceback));
  m.def("set_memory_metadata", wrap_pybind_function(set_memory_metadata));
  m.def("memory_metadata", wrap_pybind_function(memory_metadata));
}

}  // namespace openreg::python
