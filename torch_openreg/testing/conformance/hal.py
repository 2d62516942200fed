"""openreg_hal.h for Python: the table through ctypes, and a thin wrapper that tests and checks read well with.

Needs no torch, and imports nothing of the package: tests/driver loads it by its path. tests/driver/test_abi.py compares every size and offset
here with the header.
"""

import contextlib
import ctypes as c

NEVER = 2**64 - 1
LEND_THREAD = 1 << 63
OK, NOT_READY, INVALID_VALUE, INVALID_DEVICE, OUT_OF_MEMORY, UNSUPPORTED = range(6)
NOT_INITIALIZED, FORKED, LAUNCH_FAILED, DEVICE_LOST, INTERNAL, CAPTURE = range(6, 12)
GLOBAL, THREAD_LOCAL, RELAXED = range(3)  # capture modes
LAUNCH, COPY, FILL, RECORD, WAIT, ALLOC, FREE, SYNC, GRAPH = range(9)  # kinds of trace records
HOST = -1
STATUS = ("OK", "NOT_READY", "INVALID_VALUE", "INVALID_DEVICE", "OUT_OF_MEMORY", "UNSUPPORTED", "NOT_INITIALIZED", "FORKED", "LAUNCH_FAILED",
          "DEVICE_LOST", "INTERNAL", "CAPTURE")  # by number

Stream = Event = Kernel = Graph = c.c_void_p
u32, u64, i32, i64, text, ptr = c.c_uint32, c.c_uint64, c.c_int32, c.c_int64, c.c_char_p, c.c_void_p


class Error(c.Structure):
    _fields_ = [("struct_size", u32), ("status", i32), ("kind", i32), ("device", i32), ("stream_id", u64), ("tag", u64),
                ("name", c.c_char * 128), ("message", c.c_char * 1024)]


class Option(c.Structure):
    _fields_ = [("key", text), ("value", text)]


class DeviceInfo(c.Structure):
    _fields_ = [("struct_size", u32), ("name", c.c_char * 64), ("total_memory_bytes", u64),
                ("allocation_granularity_bytes", u64), ("compute_units", i32), ("capability_major", i32),
                ("capability_minor", i32), ("priority_least", i32), ("priority_greatest", i32)]


class StreamInfo(c.Structure):
    _fields_ = [("struct_size", u32), ("device", i32), ("priority", i32), ("stream_id", u64), ("queued", u64),
                ("running_for_ns", u64), ("running", c.c_char * 128)]


class Process(c.Structure):
    _fields_ = [("pid", i64), ("bytes", u64)]


class Usage(c.Structure):
    _fields_ = [("struct_size", u32), ("busy_permille", u32), ("streams", u32), ("processes", u32)]


class Range(c.Structure):
    _fields_ = [("base", ptr), ("bytes", u64), ("write", i32)]


class IpcHandle(c.Structure):
    _fields_ = [("bytes", c.c_ubyte * 64)]


class TraceRecord(c.Structure):
    _fields_ = [("struct_size", u32), ("kind", i32), ("operation", i32), ("device", i32), ("stream_id", u64), ("correlation", u64), ("cause", u64),
                ("tag", u64), ("name", text), ("begin_ns", u64), ("end_ns", u64), ("bytes", u64), ("address", ptr), ("dst_device", i32),
                ("src_device", i32), ("status", i32)]


Cleanup = c.CFUNCTYPE(None, ptr)
HostFunc = c.CFUNCTYPE(i32, ptr, c.POINTER(Error))


class Operand(c.Structure):
    _fields_ = [("flags", u32), ("element_bytes", u32), ("dims", i32), ("sizes", c.POINTER(i64)), ("strides", c.POINTER(i64)), ("dtype", text),
                ("token", u64)]


class LaunchDesc(c.Structure):
    _fields_ = [("struct_size", u32), ("name", text), ("tag", u64), ("flops", u64), ("bytes", u64),
                ("ranges", c.POINTER(Range)), ("range_count", u32), ("cleanup", ptr), ("operands", c.POINTER(Operand))]


class Geometry(c.Structure):
    _fields_ = [("grid", u32 * 3), ("block", u32 * 3)]


P = c.POINTER
ENTRIES = [  # name, argument types; every entry but last_message returns a status
    ("init", [P(Option), c.c_size_t]),
    ("shutdown", [u64]),
    ("last_message", []),
    ("device_count", [P(i32)]),
    ("device_info", [i32, P(DeviceInfo)]),
    ("device_synchronize", [i32, u64, P(Error)]),
    ("device_clock", [i32, P(u64)]),
    ("mem_alloc", [i32, u64, P(ptr)]),
    ("mem_free", [i32, ptr]),
    ("mem_info", [i32, P(u64), P(u64)]),
    ("mem_query", [ptr, P(i32), P(ptr), P(u64)]),
    ("mem_kernel_view", [i32, P(c.c_ssize_t)]),
    ("host_alloc", [u64, P(ptr)]),
    ("host_free", [ptr]),
    ("host_query", [ptr, P(ptr), P(u64)]),
    ("copy", [Stream, ptr, i32, ptr, i32, u64, P(LaunchDesc)]),
    ("fill", [Stream, ptr, c.c_uint8, u64, P(LaunchDesc)]),
    ("stream_create", [i32, i32, P(Stream)]),
    ("stream_destroy", [Stream]),
    ("stream_query", [Stream]),
    ("stream_synchronize", [Stream, u64, P(Error)]),
    ("stream_wait_event", [Stream, Event]),
    ("stream_info", [Stream, P(StreamInfo)]),
    ("event_create", [i32, i32, P(Event)]),
    ("event_destroy", [Event]),
    ("event_record", [Event, Stream]),
    ("event_query", [Event]),
    ("event_synchronize", [Event, u64, P(Error)]),
    ("event_elapsed", [Event, Event, P(i64)]),
    ("kernel_load", [i32, text, ptr, u64, P(Kernel)]),
    ("kernel_unload", [Kernel]),
    ("launch_kernel", [Stream, Kernel, P(Geometry), ptr, u64, P(LaunchDesc)]),
    ("launch_host_func", [Stream, ptr, ptr, u64, P(LaunchDesc)]),
    ("mem_reserve", [i32, u64, P(ptr)]),
    ("mem_unreserve", [i32, ptr]),
    ("mem_map", [i32, ptr, u64]),
    ("mem_unmap", [i32, ptr, u64]),
    ("device_processes", [i32, P(Process), P(u32)]),
    ("mem_export", [i32, ptr, P(IpcHandle)]),
    ("mem_import", [P(IpcHandle), P(i32), P(ptr), P(u64)]),
    ("mem_close", [i32, ptr]),
    ("event_create_shared", [i32, P(Event)]),
    ("event_export", [Event, P(IpcHandle)]),
    ("event_import", [P(IpcHandle), P(i32), P(Event)]),
    ("capture_begin", [Stream, i32]),
    ("capture_end", [Stream, P(Graph)]),
    ("stream_capture_info", [Stream, P(i32), P(u64)]),
    ("capture_exchange_mode", [P(i32)]),
    ("graph_launch", [Graph, Stream]),
    ("graph_destroy", [Graph]),
    ("graph_update", [Graph, Graph]),
    ("graph_dump", [Graph, text]),
    ("option_exchange", [text, text, ptr, u64]),
    ("device_lose", [i32, text]),
    ("device_reset", [i32]),
    ("trace_exchange", [ptr, ptr]),
    ("device_usage", [i32, u64, P(Usage)]),
]
OPTIONAL = {
    "mem_kernel_view", "mem_reserve", "mem_unreserve", "mem_map", "mem_unmap", "device_processes",
    "mem_export", "mem_import", "mem_close", "event_create_shared", "event_export", "event_import",
    "capture_begin", "capture_end", "stream_capture_info", "capture_exchange_mode", "graph_launch", "graph_destroy",
    "graph_update", "graph_dump", "option_exchange", "device_lose", "device_reset", "trace_exchange",
    "device_usage",
}  # fmt: skip


class DriverTable(c.Structure):
    _fields_ = [("struct_size", u32), ("major", u32), ("minor", u32), ("wants", u32), ("name", text)] + [
        (name, c.CFUNCTYPE(text if name == "last_message" else i32, *arguments)) for name, arguments in ENTRIES]


class Refused(AssertionError):
    """An entry did not return OK where a shorthand needs it."""


class Driver:
    """One loaded driver. An attribute that is an entry's name calls the entry; the other methods are shorthands that
    raise Refused, which fails a test, unless the entry returns OK."""

    def __init__(self, path):
        self.library = c.CDLL(str(path))
        self.library.openreg_get_driver.restype = i32
        self.library.openreg_get_driver.argtypes = [u32, P(P(DriverTable))]
        table = P(DriverTable)()
        status = self.library.openreg_get_driver(1, c.byref(table))
        if status != OK:
            raise Refused(f"{path} does not implement HAL version 1: openreg_get_driver returns {STATUS[status]}")
        self.table = table.contents
        self.name = self.table.name.decode()
        self.keep = []  # Python objects that queued tasks refer to

    def __getattr__(self, entry):
        return getattr(self.table, entry)

    def start(self, **options):
        pairs = (Option * max(1, len(options)))(*[(k.encode(), str(v).encode()) for k, v in options.items()])
        status = self.table.init(pairs, len(options))
        self.ok(status)
        return self

    def message(self):
        return self.table.last_message().decode()

    def ok(self, status):
        if status != OK:
            raise Refused(f"status {status}: {self.message()}")

    @property
    def devices(self):
        count = i32()
        self.ok(self.device_count(c.byref(count)))
        return count.value

    def info(self, device=0):
        info = DeviceInfo(struct_size=c.sizeof(DeviceInfo))
        self.ok(self.device_info(device, c.byref(info)))
        return info

    def alloc(self, bytes, device=0):
        address = ptr()
        self.ok(self.mem_alloc(device, bytes, c.byref(address)))
        return address.value

    def memory(self, device=0):
        free, total = u64(), u64()
        self.ok(self.mem_info(device, c.byref(free), c.byref(total)))
        return free.value, total.value

    def delta(self, device=0):
        delta = c.c_ssize_t()
        self.ok(self.mem_kernel_view(device, c.byref(delta)))
        return delta.value

    def stream(self, device=0, priority=0):
        handle = Stream()
        self.ok(self.stream_create(device, priority, c.byref(handle)))
        return handle

    def event(self, device=0, timing=False):
        handle = Event()
        self.ok(self.event_create(device, int(timing), c.byref(handle)))
        return handle

    def record(self, stream, event=None):
        event = event or self.event()
        self.ok(self.event_record(event, stream))
        return event

    def end_capture(self, stream):
        handle = Graph()
        self.ok(self.capture_end(stream, c.byref(handle)))
        return handle

    def capture_state(self, stream):
        state, number = i32(), u64()
        self.ok(self.stream_capture_info(stream, c.byref(state), c.byref(number)))
        return ("none", "active", "invalid")[state.value], number.value

    def exchange(self, key, value=None):
        """(status, the value before) of option_exchange."""
        before = c.create_string_buffer(64)
        status = self.option_exchange(key.encode(), None if value is None else value.encode(), c.cast(before, ptr), len(before))
        return status, before.value.decode()

    def state(self, stream):
        info = StreamInfo(struct_size=c.sizeof(StreamInfo))
        self.ok(self.stream_info(stream, c.byref(info)))
        return info

    def sync(self, stream, timeout_ns=NEVER):
        """(status, error record) of stream_synchronize."""
        error = Error(struct_size=c.sizeof(Error))
        return self.stream_synchronize(stream, timeout_ns, c.byref(error)), error

    def desc(self, name=b"task", tag=0, cleanup=None):
        desc = LaunchDesc(struct_size=c.sizeof(LaunchDesc), name=name, tag=tag, cleanup=c.cast(cleanup, ptr) if cleanup else None)
        self.keep.append((desc, cleanup))
        return desc

    def launch(self, stream, function, arguments=None, **desc):
        """Launches a function of the tasks library with a ctypes structure as arguments."""
        size = c.sizeof(arguments) if arguments is not None else 0
        pointer = c.cast(c.byref(arguments), ptr) if arguments is not None else None
        described = self.desc(**desc)
        self.ok(self.launch_host_func(stream, c.cast(function, ptr), pointer, size, c.byref(described)))

    def call(self, stream, function, **desc):
        """Launches a Python callable; its exceptions become failures."""
        def wrapper(_, error):
            try:
                function()
                return OK
            except Exception as exception:  # the boundary knows only statuses
                error.contents.kind = 7
                error.contents.message = str(exception).encode()
                return LAUNCH_FAILED
        wrapped = HostFunc(wrapper)
        self.keep.append(wrapped)
        self.launch(stream, wrapped, **desc)

    def lose(self, device=0, reason=b"on purpose"):
        self.ok(self.device_lose(device, reason))

    def write(self, address, data, device=0):
        stream = self.stream(device)
        buffer = c.create_string_buffer(data, len(data))
        self.ok(self.copy(stream, address, device, c.cast(buffer, ptr), HOST, len(data), None))
        self.ok(self.sync(stream)[0])
        self.ok(self.stream_destroy(stream))

    def read(self, address, bytes, device=0):
        stream = self.stream(device)
        buffer = c.create_string_buffer(bytes)
        self.ok(self.copy(stream, c.cast(buffer, ptr), HOST, address, device, bytes, None))
        self.ok(self.sync(stream)[0])
        self.ok(self.stream_destroy(stream))
        return buffer.raw

    @contextlib.contextmanager
    def started(self, **options):
        self.start(**options)
        try:
            yield self
        finally:
            self.table.shutdown(5 * 10**9)
            self.keep.clear()
