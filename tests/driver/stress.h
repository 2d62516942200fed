// What the stress programs of this folder and of tests/layers share: the driver under test, checks that end the process, and random numbers.
#pragma once

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include "hal/openreg_hal.h"

namespace {

const openreg_driver* driver;

#define CHECK(condition)                                                                                    \
  do {                                                                                                      \
    if (!(condition)) {                                                                                     \
      fprintf(stderr, "%s:%d: %s is false; %s\n", __FILE__, __LINE__, #condition, driver->last_message()); \
      _Exit(1);                                                                                             \
    }                                                                                                       \
  } while (0)
#define OK(call) CHECK((call) == OPENREG_OK)

class Random {
 public:
  explicit Random(uint64_t seed) : state_(seed * 2654435761u + 1) {}
  uint32_t below(uint32_t bound) {
    state_ = state_ * 6364136223846793005u + 1442695040888963407u;
    return static_cast<uint32_t>(state_ >> 33) % bound;
  }

 private:
  uint64_t state_;
};

}  // namespace
