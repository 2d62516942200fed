// handle.h: the live objects of one kind, so that an unknown or destroyed handle is refused and never followed.
//
// Objects are shared: one that is destroyed while another thread looks at it goes when that thread has finished.
#pragma once

#include <memory>
#include <mutex>
#include <unordered_map>
#include <vector>

namespace openreg::null {

template <class T, class Handle>
class Handles {
 public:
  Handle add(std::shared_ptr<T> object) {
    std::lock_guard guard(mutex_);
    const Handle handle = reinterpret_cast<Handle>(object.get());
    live_.emplace(handle, std::move(object));
    return handle;
  }

  // The object, or null.
  std::shared_ptr<T> find(Handle handle) {
    std::lock_guard guard(mutex_);
    const auto found = live_.find(handle);
    return found == live_.end() ? nullptr : found->second;
  }

  // The object, no longer live, or null.
  std::shared_ptr<T> take(Handle handle) {
    std::lock_guard guard(mutex_);
    const auto found = live_.find(handle);
    if (found == live_.end()) return nullptr;
    std::shared_ptr<T> object = std::move(found->second);
    live_.erase(found);
    return object;
  }

  std::vector<std::shared_ptr<T>> all() {
    std::lock_guard guard(mutex_);
    std::vector<std::shared_ptr<T>> objects;
    for (const auto& [handle, object] : live_) objects.push_back(object);
    return objects;
  }

  void destroy_all() {
    std::lock_guard guard(mutex_);
    live_.clear();
  }

 private:
  std::mutex mutex_;
  std::unordered_map<Handle, std::shared_ptr<T>> live_;
};

}  // namespace openreg::null
