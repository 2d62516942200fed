// Layers: observers of the HAL between the runtime and a driver. A layer takes a driver's table and returns one that looks at calls and
// forwards them, so it works on any driver and costs nothing when it is not stacked. Knows the HAL and the standard library only.
//
// How to write one: copy the table below (so that entries which the layer does not know pass through), replace the entries to look at, and
// keep the table below for forwarding. A layer exists at most once in a process.
#pragma once

#include <cstring>

#include "hal/openreg_hal.h"

namespace openreg::layers {

struct Layer {
  const char* name;  // as in OPENREG_LAYERS
  // The layer's table over `below`, in static storage of the layer. Any thread, one at a time; again with the same or another table.
  const openreg_driver* (*stack)(const openreg_driver* below);
};

// The layer of that name, null when there is none.
const Layer* find_layer(const char* name);

// Whether a layer put this operation on its stream by itself: the names of such operations begin with "layer::". Other layers forward them, so
// that what they count and change is what the program asked for, whatever else is stacked.
inline bool is_of_a_layer(const openreg_launch_desc* desc) {
  return desc != nullptr && desc->name != nullptr && std::strncmp(desc->name, "layer::", 7) == 0;
}

// The names of every layer, "sanitizer, faults".
const char* layer_names();

// A copy of the table below; entries that it lacks are null.
inline openreg_driver copy_of(const openreg_driver& below) {
  openreg_driver table = {};
  std::memcpy(&table, &below, below.struct_size < sizeof(table) ? below.struct_size : sizeof(table));
  table.struct_size = sizeof(table);
  return table;
}

}  // namespace openreg::layers
