// Memory: statistics, settings, limits, pools, and blocks by address.
#include <torch/csrc/Exceptions.h>

#include <memory>
#include <optional>

#include "python/module.h"
#include "runtime/allocator_config.h"
#include "runtime/device_allocator.h"
#include "runtime/driver.h"
#include "runtime/host_allocator.h"
#include "runtime/memory_pool.h"
#include "runtime/out_of_memory.h"

namespace py = pybind11;

namespace openreg::python {

namespace {

using c10::CachingAllocator::Stat;
using c10::CachingAllocator::StatArray;

py::dict stat(const Stat& stat) {
  py::dict entry;
  entry["current"] = stat.current;
  entry["peak"] = stat.peak;
  entry["allocated"] = stat.allocated;
  entry["freed"] = stat.freed;
  return entry;
}

py::dict stats(const StatArray& array) {
  py::dict entry;
  entry["all"] = stat(array[0]);
  entry["small_pool"] = stat(array[1]);
  entry["large_pool"] = stat(array[2]);
  return entry;
}

py::dict memory_stats(int device) {
  const c10::CachingDeviceAllocator::DeviceStats all = device_allocator()->getDeviceStats(device_index(device));
  py::dict result, by_pool;
  result["allocation"] = stats(all.allocation);
  result["segment"] = stats(all.segment);
  result["active"] = stats(all.active);
  result["inactive_split"] = stats(all.inactive_split);
  result["allocated_bytes"] = stats(all.allocated_bytes);
  result["reserved_bytes"] = stats(all.reserved_bytes);
  result["active_bytes"] = stats(all.active_bytes);
  result["inactive_split_bytes"] = stats(all.inactive_split_bytes);
  result["requested_bytes"] = stats(all.requested_bytes);
  for (const auto& [pool, array] : all.reserved_bytes_by_private_pools) by_pool[py::make_tuple(pool.first, pool.second)] = stats(array);
  result["reserved_bytes_by_private_pools"] = by_pool;
  result["num_alloc_retries"] = all.num_alloc_retries;
  result["num_ooms"] = all.num_ooms;
  result["num_sync_all_streams"] = all.num_sync_all_streams;
  result["num_device_alloc"] = all.num_device_alloc;
  result["num_device_free"] = all.num_device_free;
  result["max_split_size"] = all.max_split_size;
  result["oversize_allocations"] = stat(all.oversize_allocations);
  result["oversize_segments"] = stat(all.oversize_segments);
  return result;
}

py::dict host_memory_stats() {
  start_driver();
  const at::HostStats all = host_allocator()->get_stats();
  const auto duration = [](const c10::CachingAllocator::DurationStat& time) {
    py::dict entry;
    entry["total"] = time.total;
    entry["max"] = time.max;
    entry["min"] = time.min;
    entry["count"] = time.count;
    entry["avg"] = time.count == 0 ? 0 : time.total / time.count;
    return entry;
  };
  py::dict result;
  result["allocated_bytes"] = stat(all.allocated_bytes);
  result["allocations"] = stat(all.allocations);
  result["active_bytes"] = stat(all.active_bytes);
  result["active_requests"] = stat(all.active_requests);
  result["host_alloc_time"] = duration(all.host_alloc_time);
  result["host_free_time"] = duration(all.host_free_time);
  result["num_host_alloc"] = all.num_host_alloc;
  result["num_host_free"] = all.num_host_free;
  return result;
}

py::list settings() {
  py::list all;
  for (const AllocatorSetting& setting : allocator_settings()) all.append(py::make_tuple(setting.key, setting.standard, setting.meaning));
  return all;
}

uintptr_t allocate_block(int device, int64_t stream, int64_t bytes) {
  TORCH_CHECK_VALUE(bytes >= 0, "A block of ", bytes, " bytes cannot be allocated.");
  py::gil_scoped_release no_gil;
  const c10::Stream on(c10::Stream::UNSAFE, c10::Device(c10::DeviceType::PrivateUse1, device_index(device)), stream);
  return reinterpret_cast<uintptr_t>(allocate_device_block(on, static_cast<size_t>(bytes)));
}

// The observer's exception goes to the caller of the allocation, in place of the out-of-memory error. It is never destroyed.
void attach_observer(py::function observer) {
  auto* leaked = new py::function(std::move(observer));
  attach_out_of_memory_observer([leaked](c10::DeviceIndex device, uint64_t requested, uint64_t allocated, uint64_t free) {
    py::gil_scoped_acquire gil;
    (*leaked)(static_cast<int>(device), requested, allocated, free);
  });
}

py::object device_processes(int device) {
  const openreg_driver& table = hal();
  if (!has_entry(table, &openreg_driver::device_processes)) return py::none();
  std::vector<openreg_process> processes(16);
  uint32_t count = 0;
  {
    py::gil_scoped_release no_gil;
    for (;;) {
      count = static_cast<uint32_t>(processes.size());
      const openreg_status status = table.device_processes(driver_device(device), processes.data(), &count);
      if (status != OPENREG_UNSUPPORTED) check(status, "Listing the device's processes");
      if (status == OPENREG_UNSUPPORTED) count = 0;
      if (count <= processes.size()) break;
      processes.resize(count);
    }
  }
  py::list list;
  for (uint32_t i = 0; i < count; ++i) list.append(py::make_tuple(processes[i].pid, processes[i].bytes));
  return list;
}

}  // namespace

void bind_memory(py::module_& m) {
  using torch::wrap_pybind_function;
  using torch::wrap_pybind_function_no_gil;
  using Pool = c10::MempoolId_t;
  m.def("memory_stats", wrap_pybind_function(memory_stats));
  m.def("host_memory_stats", wrap_pybind_function(host_memory_stats));
  m.def("reset_accumulated_host_memory_stats", wrap_pybind_function([]() { host_allocator()->reset_accumulated_stats(); }));
  m.def("reset_peak_host_memory_stats", wrap_pybind_function([]() { host_allocator()->reset_peak_stats(); }));
  m.def("allocator_settings", wrap_pybind_function(settings));
  m.def("set_allocator_settings", wrap_pybind_function([](const std::string& settings) { set_allocator_settings(settings); }));
  m.def("memory_caching", []() { return memory_caching(); });
  m.def("set_memory_caching", [](bool enabled) { set_memory_caching(enabled); });
  m.def("memory_fraction", wrap_pybind_function([](int device) { return memory_fraction(device_index(device)); }));
  m.def("set_memory_fraction", wrap_pybind_function([](int device, double fraction) { set_memory_fraction(device_index(device), fraction); }));
  m.def("allocate_block", wrap_pybind_function(allocate_block), py::arg("device"), py::arg("stream"), py::arg("bytes"));
  m.def("free_block", wrap_pybind_function_no_gil([](uintptr_t address) { free_device_block(reinterpret_cast<void*>(address)); }));
  m.def("attach_out_of_memory_observer", wrap_pybind_function(attach_observer));
  m.def("device_processes", wrap_pybind_function(device_processes));

  m.def("new_memory_pool_id", [](bool by_program) { return new_memory_pool_id(by_program); });
  m.def("retain_memory_pool", wrap_pybind_function([](int device, Pool id, bool no_split, bool use_on_oom) {
          retain_memory_pool(device_index(device), id, no_split, use_on_oom);
        }));
  m.def("release_memory_pool", wrap_pybind_function([](int device, Pool id) { release_memory_pool(device_index(device), id); }));
  m.def("memory_pool_use_count", wrap_pybind_function([](int device, Pool id) { return memory_pool_use_count(device_index(device), id); }));
  m.def("begin_allocate_current_thread_to_pool",
        wrap_pybind_function([](int device, Pool id) { begin_allocate_current_thread_to_pool(device_index(device), id); }));
  m.def("begin_allocate_to_pool", wrap_pybind_function([](int device, Pool id, std::optional<int64_t> stream) {
          begin_allocate_to_pool(device_index(device), id, [stream](c10::StreamId one) { return !stream || *stream == one; });
        }));
  m.def("end_allocate_to_pool", wrap_pybind_function([](int device, Pool id) { end_allocate_to_pool(device_index(device), id); }));
  m.def("empty_memory_pool", wrap_pybind_function_no_gil([](Pool id) { device_allocator()->emptyCache(id); }));
}

}  // namespace openreg::python
