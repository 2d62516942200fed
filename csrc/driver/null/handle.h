// handle.h: the live objects of one kind, so that an unknown or destroyed handle is refused and never followed.
#pragma once

#include <mutex>
#include <unordered_set>
#include <vector>

namespace openreg::null {

template <class T, class Handle>
class Handles {
 public:
  Handle add(T* object) {
    std::lock_guard guard(mutex_);
    live_.insert(object);
    return reinterpret_cast<Handle>(object);
  }

  // The object, or null.
  T* find(Handle handle) {
    std::lock_guard guard(mutex_);
    T* object = reinterpret_cast<T*>(handle);
    return live_.count(object) ? object : nullptr;
  }

  // The object, which is the caller's from now on, or null.
  T* take(Handle handle) {
    std::lock_guard guard(mutex_);
    T* object = reinterpret_cast<T*>(handle);
    return live_.erase(object) ? object : nullptr;
  }

  std::vector<T*> all() {
    std::lock_guard guard(mutex_);
    return {live_.begin(), live_.end()};
  }

  void destroy_all() {
    std::lock_guard guard(mutex_);
    for (T* object : live_) delete object;
    live_.clear();
  }

 private:
  std::mutex mutex_;
  std::unordered_set<T*> live_;
};

}  // namespace openreg::null
