"""External streams whose owner has destroyed them leave nothing behind: no lists of memory, no queues, no threads.

Each test runs a process of its own. Needs torch with torch_openreg installed.
"""

from pathlib import Path

START = f"""
import sys
sys.path.insert(0, {str(Path(__file__).parents[1] / "driver")!r})
import hal, os, threading, torch, torch_openreg
torch.openreg.init()
driver = hal.Driver(torch_openreg._C.driver_info()["path"])

def external():
    handle = driver.stream(1)
    return handle, torch.openreg.ExternalStream(handle.value, 1)
"""


def test_memory_of_ended_streams_is_kept_by_nobody(python):
    python(
        START,
        """
        def resident():
            return int(open("/proc/self/statm").read().split()[1]) * os.sysconf("SC_PAGE_SIZE")

        def use():
            handle, stream = external()
            with torch.openreg.stream(stream):
                own = torch.empty(1000, device="openreg:1")
            other = torch.empty(1000, device="openreg:1")
            other.record_stream(stream)
            del own, other
            stream.synchronize()
            torch.openreg.empty_cache()
            driver.ok(driver.stream_destroy(handle))

        for _ in range(50):
            use()
        before = resident()
        for _ in range(1000):
            use()
        assert resident() - before < 16 * 2**20, (before, resident())
        assert torch.openreg.memory_reserved(1) == 0
        """,
    )


def test_a_flush_waits_for_work_of_a_stream_that_was_destroyed(python):
    python(
        START,
        """
        handle, stream = external()
        used, ran = torch.empty(1000, device="openreg:1"), []
        stream.launch_host_func(lambda: ran.append(1))
        used.record_stream(stream)
        del used
        driver.ok(driver.stream_destroy(handle))
        torch.openreg.empty_cache()
        assert ran == [1] and torch.openreg.memory_stats(1)["active.all.current"] == 0
        """,
        env={"OPENREG_SCHEDULE": "lazy"},
        timeout=60,
    )


def test_the_thread_of_host_functions_ends_after_its_stream(python):
    python(
        START,
        """
        def launch(ended=True):
            before, ran = set(threading.enumerate()), []
            handle, stream = external()
            stream.launch_host_func(lambda: ran.append(1))
            stream.synchronize()
            assert ran == [1]
            if ended:
                driver.ok(driver.stream_destroy(handle))
            (thread,) = set(threading.enumerate()) - before
            return stream, thread

        kept, serving = launch(ended=False)
        _, first = launch()
        for _ in range(200):    # the thread may not have dropped the function yet when another one is made
            launch()
            first.join(0.05)
            if not first.is_alive():
                break
        else:
            raise AssertionError("it still runs")
        seen = []
        kept.launch_host_func(lambda: seen.append(threading.current_thread()))
        kept.synchronize()
        assert seen == [serving]
        """,
    )


def test_a_graph_keeps_the_thread_of_its_host_function(python):
    python(
        START,
        """
        handle, stream = external()
        ran, graph = [], torch.openreg.Graph()
        with torch.openreg.device(1), torch.openreg.graph(graph, stream=stream):
            stream.launch_host_func(lambda: ran.append(1))
        driver.ok(driver.stream_destroy(handle))
        for _ in range(3):      # each looks for threads to end
            other = torch.openreg.Stream(1)
            other.launch_host_func(lambda: None)
            other.synchronize()
        with torch.openreg.device(1):
            graph.replay()
            torch.openreg.synchronize()
        assert ran == [1]
        """,
        timeout=60,
    )
