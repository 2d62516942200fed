// Loading, checking and starting the driver.
#include "runtime/driver.h"

#include <c10/util/Exception.h>
#include <dlfcn.h>
#include <pthread.h>

#include <algorithm>
#include <mutex>
#include <sstream>
#include <utility>

#include "layers/layer.h"
#include "runtime/watchdog.h"

namespace openreg {

namespace detail {
std::atomic<const openreg_driver*> driver_table{nullptr};
std::atomic<bool> ranges_wanted{false};
int driver_device_of[kMaxDevices] = {};
intptr_t kernel_delta_of[kMaxDevices] = {};
bool kernel_view_of[kMaxDevices] = {};
}  // namespace detail

namespace {

struct State {
  std::mutex mutex;  // LOCK: settings, identity
  DriverSettings settings;
  DriverIdentity identity;
  std::vector<std::string> front;  // layers of set_layer, before those of the settings
  const openreg_driver* driver = nullptr;             // the driver's own table, below every layer
  std::atomic<const openreg_driver*> table{nullptr};  // kept in a forked child, where driver_table is null
  std::atomic<int> visible_count{0};
  std::atomic<bool> forked{false};
  std::atomic<bool> stopped{false};
};

State& state() {
  static State* leaked = new State;
  return *leaked;
}

void mark_forked_child() {
  if (detail::driver_table.exchange(nullptr) != nullptr) state().forked = true;
}

#define OPENREG_REQUIRED_ENTRIES(X)                                                                                      \
  X(init) X(shutdown) X(last_message) X(device_count) X(device_info) X(device_synchronize) X(device_clock) X(mem_alloc)  \
  X(mem_free) X(mem_info) X(mem_query) X(host_alloc) X(host_free) X(host_query) X(copy) X(fill) X(stream_create)         \
  X(stream_destroy) X(stream_query) X(stream_synchronize) X(stream_wait_event) X(stream_info) X(event_create)            \
  X(event_destroy) X(event_record) X(event_query) X(event_synchronize) X(event_elapsed) X(kernel_load) X(kernel_unload) \
  X(launch_kernel) X(launch_host_func)

const openreg_driver* load_table(const std::string& path) {
  dlerror();
  void* library = dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL);
  if (library == nullptr) {
    const char* reason = dlerror();
    TORCH_CHECK(false, "The openreg driver cannot be loaded from ", path, ": ", reason ? reason : "no reason given",
                ". Set OPENREG_DRIVER to the path of a driver library, or reinstall torch_openreg (docs/hal.md).");
  }
  auto get = reinterpret_cast<openreg_get_driver_fn>(dlsym(library, OPENREG_GET_DRIVER_SYMBOL));
  TORCH_CHECK(get != nullptr, "The library ", path, " is no openreg driver: it does not export ", OPENREG_GET_DRIVER_SYMBOL,
              " (docs/hal.md).");
  const openreg_driver* table = nullptr;
  const openreg_status status = get(OPENREG_HAL_MAJOR, &table);
  TORCH_CHECK(status == OPENREG_OK && table != nullptr && table->major == OPENREG_HAL_MAJOR, "The driver ", path,
              " does not implement HAL version ", OPENREG_HAL_MAJOR,
              table ? ".x but " + std::to_string(table->major) + "." + std::to_string(table->minor) : ".x",
              "; use a driver built against csrc/hal/openreg_hal.h of this torch_openreg (docs/hal.md).");
#define OPENREG_CHECK_ENTRY(entry)                                                                                   \
  TORCH_CHECK(offsetof(openreg_driver, entry) + sizeof(table->entry) <= table->struct_size && table->entry != nullptr, \
              "The driver ", path, " lacks the required HAL entry '" #entry "' (docs/hal.md lists the entries).");
  OPENREG_REQUIRED_ENTRIES(OPENREG_CHECK_ENTRY)
#undef OPENREG_CHECK_ENTRY
  return table;
}

// Torch's device numbers -> the driver's. CUDA_VISIBLE_DEVICES' rule: the first invalid number ends the list.
std::vector<int> visible_devices(const DriverSettings& settings, int count) {
  std::vector<int> devices;
  if (!settings.visible_set) {
    for (int i = 0; i < count && i < kMaxDevices; ++i) devices.push_back(i);
    return devices;
  }
  for (int device : settings.visible) {
    if (device < 0 || device >= count || devices.size() == kMaxDevices) break;
    devices.push_back(device);
  }
  return devices;
}

void check_layers(const std::vector<std::string>& names) {
  for (const std::string& name : names) {
    TORCH_CHECK(layers::find_layer(name.c_str()) != nullptr, "OPENREG_LAYERS names the layer '", name,
                "', which this version does not have: its layers are ", layers::layer_names(), " (docs/hal.md).");
    TORCH_CHECK(std::count(names.begin(), names.end(), name) == 1, "OPENREG_LAYERS names the layer '", name, "' more than once.");
  }
}

// Stacks the layers over the driver, the first closest to the caller, and lets the runtime use the result.
void use_layers(State& s) {
  std::vector<std::string> names = s.front;
  for (const std::string& name : s.settings.layers) {
    if (std::find(names.begin(), names.end(), name) == names.end()) names.push_back(name);
  }
  const openreg_driver* table = s.driver;
  for (auto name = names.rbegin(); name != names.rend(); ++name) table = layers::find_layer(name->c_str())->stack(table);
  s.table = table;
  s.identity.layers = names;
  detail::ranges_wanted = (table->wants & OPENREG_WANT_RANGES) != 0;
  detail::driver_table.store(table, std::memory_order_release);
}

void start_locked(State& s) {
  TORCH_CHECK(!s.stopped, "The openreg driver was shut down; a new process is needed to use it again.");
  check_layers(s.settings.layers);
  const openreg_driver* table = load_table(s.settings.path);
  std::vector<openreg_option> options;
  for (const auto& [key, value] : s.settings.options) options.push_back({key.c_str(), value.c_str()});
  openreg_status status = table->init(options.data(), options.size());
  TORCH_CHECK(status == OPENREG_OK, "The openreg driver '", table->name, "' did not start: ", table->last_message());

  int32_t count = 0;
  status = table->device_count(&count);
  if (status != OPENREG_OK) {
    const std::string reason = table->last_message();
    table->shutdown(0);
    TORCH_CHECK(false, "The openreg driver '", table->name, "' cannot count its devices: ", reason);
  }
  const std::vector<int> devices = visible_devices(s.settings, count);
  for (size_t i = 0; i < devices.size(); ++i) {
    detail::driver_device_of[i] = devices[i];
    const bool mapped = offsetof(openreg_driver, mem_kernel_view) < table->struct_size && table->mem_kernel_view != nullptr &&
                        table->mem_kernel_view(devices[i], &detail::kernel_delta_of[i]) == OPENREG_OK;
    detail::kernel_view_of[i] = mapped;
    if (!mapped) detail::kernel_delta_of[i] = 0;
  }
  static const int registered = pthread_atfork(nullptr, nullptr, mark_forked_child);
  (void)registered;
  s.driver = table;
  s.visible_count = static_cast<int>(devices.size());
  s.identity = {table->name, s.settings.path, table->major, table->minor, {}};
  use_layers(s);
}

const char* status_name(openreg_status status) {
  switch (status) {
    case OPENREG_NOT_READY: return "not ready";
    case OPENREG_INVALID_VALUE: return "invalid value";
    case OPENREG_INVALID_DEVICE: return "invalid device";
    case OPENREG_OUT_OF_MEMORY: return "out of memory";
    case OPENREG_UNSUPPORTED: return "unsupported";
    case OPENREG_NOT_INITIALIZED: return "not initialized";
    case OPENREG_FORKED: return "forked process";
    case OPENREG_LAUNCH_FAILED: return "launch failed";
    case OPENREG_DEVICE_LOST: return "device lost";
    case OPENREG_INTERNAL: return "internal error";
    case OPENREG_CAPTURE: return "not legal during a capture";
    default: return "unknown status";
  }
}

}  // namespace

void configure_driver(DriverSettings settings) {
  State& s = state();
  std::lock_guard<std::mutex> lock(s.mutex);
  TORCH_CHECK(s.table == nullptr, "The openreg driver has already started; configure it before the first use of a device.");
  s.visible_count = settings.expected_devices;
  s.settings = std::move(settings);
}

void start_driver() {
  if (driver_started()) return;
  State& s = state();
  TORCH_CHECK(!s.forked,
              "Cannot re-initialize openreg in forked subprocess. To use openreg with multiprocessing, you must use the "
              "'spawn' start method");
  std::lock_guard<std::mutex> lock(s.mutex);
  if (s.table == nullptr) start_locked(s);
}

void set_layer(const std::string& name, bool on) {
  State& s = state();
  std::lock_guard<std::mutex> lock(s.mutex);
  const auto found = std::find(s.front.begin(), s.front.end(), name);
  if (on == (found != s.front.end())) return;
  if (!on) s.front.erase(found);
  if (on) {
    check_layers({name});
    s.front.insert(name == "sanitizer" ? s.front.begin() : s.front.end(), name);  // it judges what the program does, not what other layers add
  }
  if (s.driver != nullptr) use_layers(s);
}

int torch_device(int32_t driver_number) {
  for (int device = 0; device < visible_device_count(); ++device)
    if (driver_device(device) == driver_number) return device;
  return -1;
}

bool driver_started() noexcept { return detail::driver_table.load(std::memory_order_acquire) != nullptr; }
bool in_bad_fork() noexcept { return state().forked; }
bool driver_stopped() noexcept { return state().stopped; }

bool stop_driver(uint64_t timeout_ns) noexcept {
  State& s = state();
  if (!driver_started() || s.stopped.exchange(true)) return true;
  stop_watchdog();
  return s.table.load()->shutdown(timeout_ns) == OPENREG_OK;
}

DriverIdentity driver_identity() {
  start_driver();
  State& s = state();
  std::lock_guard<std::mutex> lock(s.mutex);
  return s.identity;
}

int visible_device_count() { return state().visible_count; }

namespace detail {

const openreg_driver& start_now() {
  start_driver();
  return *driver_table.load();
}

void throw_status(openreg_status status, const char* action) {
  const openreg_driver* table = state().table;
  const std::string message = table ? table->last_message() : "";
  std::ostringstream text;
  text << action << " failed on the openreg device (" << status_name(status) << "): " << message;
  switch (status) {
    case OPENREG_OUT_OF_MEMORY: C10_THROW_ERROR(OutOfMemoryError, text.str());
    case OPENREG_UNSUPPORTED: C10_THROW_ERROR(NotImplementedError, text.str());
    case OPENREG_INVALID_VALUE: C10_THROW_ERROR(ValueError, text.str());
    case OPENREG_INVALID_DEVICE:
    case OPENREG_NOT_INITIALIZED:
    case OPENREG_FORKED: C10_THROW_ERROR(Error, text.str());
    case OPENREG_DEVICE_LOST: text << ". torch.openreg.reset() brings a lost device back."; [[fallthrough]];
    default: throw c10::AcceleratorError({__func__, __FILE__, __LINE__}, status, text.str());
  }
}

}  // namespace detail
}  // namespace openreg
