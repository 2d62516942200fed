// The sanitizer: stacks of the calling thread under short names, its switch, and findings as dictionaries.
#include <ATen/SequenceNumber.h>
#include <ATen/record_function.h>
#include <c10/core/GradMode.h>
#include <torch/csrc/Exceptions.h>
#include <torch/csrc/autograd/function.h>

#include <array>
#include <cstdint>
#include <map>
#include <mutex>
#include <string>
#include <utility>
#include <unordered_map>
#include <vector>

#include "aten/host_access.h"
#include "python/module.h"
#include "runtime/sanitizer.h"

namespace py = pybind11;

namespace openreg::python {

namespace {

using layers::sanitizer::LiveBlock;

constexpr int kMostFrames = 24;

struct Frame {
  PyCodeObject* code;  // owned by the store
  int line;
  bool operator==(const Frame& other) const { return code == other.code && line == other.line; }
};

// Call stacks, each once. A stack is known again by its code objects and lines, so the thousandth step of a loop costs a look-up. Needs the GIL.
class StackStore {
 public:
  uint64_t intern(const Frame* frames, int count) {
    uint64_t hash = static_cast<uint64_t>(count);
    for (int i = 0; i < count; ++i) {
      hash = (hash ^ reinterpret_cast<uintptr_t>(frames[i].code)) * 0x9E3779B97F4A7C15ull;
      hash = (hash ^ static_cast<uint64_t>(frames[i].line) ^ hash >> 29) * 0xBF58476D1CE4E5B9ull;
    }
    for (auto [place, end] = names_.equal_range(hash); place != end; ++place) {
      const auto& known = stacks_[place->second - 1];
      if (known.size() == static_cast<size_t>(count) && std::equal(known.begin(), known.end(), frames)) return place->second;
    }
    for (int i = 0; i < count; ++i) Py_INCREF(frames[i].code);
    stacks_.emplace_back(frames, frames + count);
    names_.emplace(hash, stacks_.size());
    return stacks_.size();
  }

  // From now on texts are there without Python: its end is near.
  void freeze() {
    for (uint64_t name = 1; name <= stacks_.size(); ++name) frozen_.push_back(text(name));
  }

  std::string frozen_text(uint64_t name) const { return name == 0 || name > frozen_.size() ? "" : frozen_[name - 1]; }

  std::string text(uint64_t name) const {
    if (name == 0 || name > stacks_.size()) return "";
    std::string lines;
    for (const Frame& frame : stacks_[name - 1]) {
      if (!lines.empty()) lines += "\n";
      lines += word(frame.code->co_filename) + ":" + std::to_string(frame.line) + " in " + word(frame.code->co_name);
    }
    return lines;
  }

 private:
  static std::string word(PyObject* text) {
    const char* utf8 = PyUnicode_AsUTF8(text);
    if (utf8 == nullptr) PyErr_Clear();
    return utf8 == nullptr ? "?" : utf8;
  }

  std::vector<std::vector<Frame>> stacks_;
  std::unordered_multimap<uint64_t, uint64_t> names_;
  std::vector<std::string> frozen_;
};

StackStore& stacks() {
  static StackStore* leaked = new StackStore;
  return *leaked;
}

// Names for calls that autograd's threads make: the node, and the stack of the forward that made it. Any thread, without the GIL.
class BackwardStore {
 public:
  static constexpr uint64_t kBit = uint64_t{1} << 62;  // tells these names from those of the StackStore

  // The calling thread, in a forward, has this stack: it belongs to the node that autograd made last, just before it called the operator.
  void note_forward(uint64_t stack) {
    const uint64_t next = at::sequence_number::peek(), thread = at::RecordFunction::currentThreadId();
    if (next == 0) return;
    std::lock_guard<std::mutex> lock(mutex_);
    Forward& forward = forwards_[(next - 1) % forwards_.size()];
    if (forward.thread != thread || forward.sequence != next) forward = {thread, next, stack};
  }

  // A name for the node that the calling thread runs, 0 when it runs none.
  uint64_t intern_node() {
    const auto node = torch::autograd::get_current_node();
    if (node == nullptr) return 0;
    const std::string text = node->name();
    std::lock_guard<std::mutex> lock(mutex_);
    const Forward& forward = forwards_[node->sequence_nr() % forwards_.size()];
    const bool known = forward.thread == node->thread_id() && forward.sequence == node->sequence_nr() + 1;
    const auto [entry, added] = names_.try_emplace({text, known ? forward.stack : 0}, calls_.size() + 1);
    if (added) calls_.push_back(entry->first);
    return entry->second | kBit;
  }

  // The node's name, and the forward's stack.
  std::pair<std::string, uint64_t> call(uint64_t name) {
    std::lock_guard<std::mutex> lock(mutex_);
    const uint64_t index = (name & ~kBit) - 1;
    return index < calls_.size() ? calls_[index] : std::pair<std::string, uint64_t>();
  }

 private:
  struct Forward {
    uint64_t thread = 0, sequence = 0, stack = 0;  // sequence: of the node, plus one
  };

  std::mutex mutex_;  // LOCK: everything
  std::array<Forward, 1 << 14> forwards_;
  std::map<std::pair<std::string, uint64_t>, uint64_t> names_;
  std::vector<std::pair<std::string, uint64_t>> calls_;
};

BackwardStore& backward() {
  static BackwardStore* leaked = new BackwardStore;
  return *leaked;
}

uint64_t stack_of_thread() {
  Frame frames[kMostFrames];
  int count = 0;
  PyFrameObject* frame = PyEval_GetFrame();
  Py_XINCREF(frame);
  while (frame != nullptr && count < kMostFrames) {
    PyCodeObject* code = PyFrame_GetCode(frame);
    frames[count++] = {code, PyFrame_GetLineNumber(frame)};
    PyFrameObject* back = PyFrame_GetBack(frame);
    Py_DECREF(frame);
    frame = back;
  }
  Py_XDECREF(frame);
  const uint64_t name = count == 0 ? 0 : stacks().intern(frames, count);
  if (name != 0 && c10::GradMode::is_enabled()) backward().note_forward(name);
  for (int i = 0; i < count; ++i) Py_DECREF(frames[i].code);
  return name;
}

bool python_is_whole() {
#if PY_VERSION_HEX >= 0x030D0000
  return Py_IsInitialized() && !Py_IsFinalizing();
#else
  return Py_IsInitialized() && !_Py_IsFinalizing();
#endif
}

// Threads that never ran Python have no stack, and are not made to wait for the GIL.
uint64_t python_stack(bool may_wait) {
  if (!python_is_whole() || PyGILState_GetThisThreadState() == nullptr) return 0;
  if (PyGILState_Check()) return stack_of_thread();
  if (!may_wait) return 0;
  py::gil_scoped_acquire gil;
  return stack_of_thread();
}

uint64_t name_stack(bool may_wait) {
  const uint64_t name = python_stack(may_wait);
  return name != 0 ? name : backward().intern_node();
}

std::string python_text(uint64_t name) {
  if (!python_is_whole()) return stacks().frozen_text(name);
  py::gil_scoped_acquire gil;
  return stacks().text(name);
}

std::string stack_text(uint64_t name) {
  if ((name & BackwardStore::kBit) == 0) return python_text(name);
  const auto [node, forward] = backward().call(name);
  const std::string lines = forward == 0 ? "" : python_text(forward);
  return "autograd thread, in " + node + (lines.empty() ? "" : ", whose forward was called at\n" + lines);
}

PyObject* sanitizer_error = nullptr;  // the class; set by Python

void raise_report(const std::string& report) {
  if (!python_is_whole() || sanitizer_error == nullptr) return;
  py::gil_scoped_acquire gil;
  PyErr_SetString(sanitizer_error, report.c_str());
  python_error raised;
  raised.persist();
  throw raised;
}

py::dict as_dict(const SanitizerFinding& finding) {
  py::list accesses;
  for (const auto& access : finding.accesses) {
    py::dict entry;
    entry["operator"] = access.name;
    entry["stream"] = access.stream;
    entry["touched"] = access.touched;
    entry["stack"] = call_stack_text(access.tag);
    accesses.append(std::move(entry));
  }
  py::dict result;
  result["kind"] = layers::sanitizer::name_of(finding.mode);
  result["sentence"] = finding.sentence;
  result["accesses"] = std::move(accesses);
  result["allocation"] = finding.allocation;
  result["allocation_stack"] = call_stack_text(finding.allocation_tag);
  result["free_stack"] = call_stack_text(finding.free_tag);
  result["remedy"] = finding.remedy;
  result["report"] = report_of(finding);
  return result;
}

py::list as_list(const std::vector<SanitizerFinding>& findings) {
  py::list list;
  for (const auto& finding : findings) list.append(as_dict(finding));
  return list;
}

template <class Function>
auto without_gil(Function&& function) {
  py::gil_scoped_release release;
  return function();
}

}  // namespace

void bind_sanitizer(py::module_& m) {
  using torch::wrap_pybind_function;
  using torch::wrap_pybind_function_no_gil;
  m.def("sanitizer_prepare", [](py::object error) {
    sanitizer_error = error.release().ptr();
    set_sanitizer_callbacks({name_stack, stack_text, raise_report});
  });
  m.def("sanitizer_set", wrap_pybind_function_no_gil([](uint32_t modes) {
          set_sanitizer(modes);
          if (modes == 0) stop_watching_host_operators();
        }));
  m.def("sanitizer_freeze_stacks", [] {
    if (sanitizing() != 0) stacks().freeze();
  });
  m.def("sanitizer_flush", wrap_pybind_function_no_gil([] { flush_findings(); }));
  m.def("sanitizer_modes", [] { return sanitizing(); });
  m.def("sanitizer_collect", wrap_pybind_function_no_gil([](bool collect) { collect_findings(collect); }));
  m.def("sanitizer_take", wrap_pybind_function([] { return as_list(without_gil(take_sanitizer_findings)); }));
  m.def("sanitizer_possible", wrap_pybind_function([] { return as_list(without_gil(possible_sanitizer_findings)); }));
  m.def("sanitizer_unraised", [] { return unraised_findings(); });
  m.def("sanitizer_forget", wrap_pybind_function_no_gil([] { forget_findings(); }));
  m.def("sanitizer_check_guards", wrap_pybind_function_no_gil([] { check_guard_zones(); }));
  m.def("sanitizer_blocks", wrap_pybind_function([](uint64_t since) {
          std::vector<std::pair<uint64_t, uintptr_t>> blocks;  // number, address
          for (const LiveBlock& block : without_gil([&] { return live_blocks_since(since); })) blocks.push_back({block.number, reinterpret_cast<uintptr_t>(block.address)});
          return blocks;
        }));
  m.def("sanitizer_excuse", [](std::vector<uint64_t> numbers) { excuse_blocks(std::move(numbers)); });
  m.def("sanitizer_report_leaks", wrap_pybind_function_no_gil([](const std::vector<uint64_t>& numbers) { report_leaks(numbers); }));
}

}  // namespace openreg::python
