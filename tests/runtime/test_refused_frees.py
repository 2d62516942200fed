"""Blocks that wait for other streams, on a driver that captures the heap's events or does not take memory back.

Needs g++ and torch; each case is a process of its own, with a driver that passes everything else on to the simulator.
"""

import pathlib
import subprocess

import pytest

import torch_openreg

SOURCE = """
#include <dlfcn.h>
#include "hal/openreg_hal.h"
static const openreg_driver* right;
static int captures, refusals;
static openreg_status record(openreg_event event, openreg_stream stream) {
  const bool capture = captures > 0 && captures-- > 0;
  if (capture) right->capture_begin(stream, OPENREG_CAPTURE_RELAXED);
  const openreg_status status = right->event_record(event, stream);
  openreg_graph graph = nullptr;
  if (capture && right->capture_end(stream, &graph) == OPENREG_OK) right->graph_destroy(graph);
  return status;
}
static openreg_status free_memory(int32_t device, void* address) {
  return refusals > 0 && refusals-- > 0 ? OPENREG_INTERNAL : right->mem_free(device, address);
}
extern "C" __attribute__((visibility("default"))) void arm(int records, int frees) { captures = records, refusals = frees; }
extern "C" __attribute__((visibility("default"))) int armed() { return captures + refusals; }
extern "C" __attribute__((visibility("default"))) openreg_status openreg_get_driver(uint32_t major, const openreg_driver** out) {
  void* simulator = dlopen(SIMULATOR, RTLD_NOW | RTLD_LOCAL);
  if (simulator == nullptr) return OPENREG_INTERNAL;
  const auto status = reinterpret_cast<openreg_get_driver_fn>(dlsym(simulator, OPENREG_GET_DRIVER_SYMBOL))(major, &right);
  if (status != OPENREG_OK) return status;
  static openreg_driver table = *right;
  table.event_record = record;
  table.mem_free = free_memory;
  *out = &table;
  return OPENREG_OK;
}
"""

START = """
import ctypes, os, threading, torch, torch_openreg
driver = ctypes.CDLL(os.environ["OPENREG_DRIVER"])
side = torch.openreg.Stream("openreg:1")

def block(size=1000):
    return torch.empty(size, device="openreg:1")

def stats():
    found = torch.openreg.memory_stats("openreg:1")
    return found["active.all.current"], found["segment.all.current"]

warm = block()
"""


@pytest.fixture(scope="module")
def driver(tmp_path_factory):
    folder = tmp_path_factory.mktemp("driver")
    (folder / "refusing.cpp").write_text(SOURCE)
    simulator = pathlib.Path(torch_openreg.__file__).parent / "lib" / "libopenreg_sim.so"
    flags = ["-shared", "-fPIC", f'-DSIMULATOR="{simulator}"', "-I", torch_openreg.get_include()]
    subprocess.run(["g++", *flags, str(folder / "refusing.cpp"), "-o", str(folder / "librefusing.so")], check=True)
    return str(folder / "librefusing.so")


def test_a_block_whose_event_became_part_of_a_capture_is_free_when_its_stream_is_done(python, driver):
    python(
        START,
        """
        for _ in range(3):
            used = block()
            address = used.data_ptr()
            used.record_stream(side)
            driver.arm(1, 0)
            del used
            assert driver.armed() == 0 and stats() == (2, 1)
            other = block()             # asks, in vain: the block waits for another event
            assert other.data_ptr() != address and stats() == (3, 1)
            side.synchronize()
            again = [block(), block()]
            assert stats() == (4, 1) and address in [part.data_ptr() for part in again]
            del other, again
        """,
        env={"OPENREG_DRIVER": driver},
    )


def test_memory_that_the_driver_does_not_take_back_stays_in_the_cache(python, driver):
    python(
        START,
        """
        torch.openreg.memory.caching_allocator_enable(False)
        used, go = block(2**20), threading.Event()
        side.launch_host_func(go.wait)
        used.record_stream(side)
        del used
        driver.arm(0, 2)
        go.set()
        side.synchronize()
        kept = block(2**20)             # gives the memory back; neither this nor the deleter raises what the driver says
        assert driver.armed() == 1 and stats() == (2, 3)
        del kept
        assert driver.armed() == 0 and stats() == (1, 3)
        torch.openreg.empty_cache()
        assert stats() == (1, 1)
        """,
        env={"OPENREG_DRIVER": driver},
    )
