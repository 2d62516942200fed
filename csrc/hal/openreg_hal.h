/* openreg_hal.h: the contract between torch_openreg and the hardware.
 *
 * A driver is one shared library that exports one symbol, openreg_get_driver,
 * which hands out a table of function pointers. Nothing above this header knows
 * a driver by name; nothing below it knows PyTorch or Python.
 *
 * How to read an entry's comment: what it does; who owns what; whether it may
 * block; which status it returns when; which threads may call it. Unless the
 * comment says otherwise an entry
 *   - may be called from any thread, at the same time as any other entry,
 *   - does not block on device work,
 *   - returns INVALID_VALUE for a null output pointer or a handle it does not know,
 *     INVALID_DEVICE for a device index outside [0, device_count),
 *     NOT_INITIALIZED before init and after shutdown, FORKED in a forked child,
 *   - leaves its outputs and the device's state untouched unless it returns OK.
 *
 * Versioning: the major version changes when an entry changes its meaning; then
 * the loader refuses the driver. The minor version grows when an entry is
 * appended. Entries and struct fields are never reordered or removed within a
 * major version: tests/driver freezes their offsets at compile time.
 *
 * Needs <stdint.h> and <stddef.h> only. C11 and C++11.
 */
#ifndef OPENREG_HAL_H
#define OPENREG_HAL_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define OPENREG_HAL_MAJOR 1
#define OPENREG_HAL_MINOR 5

/* ---- Status ----------------------------------------------------------------
 * Values, never exceptions: nothing throws, aborts or exits across this line. */
typedef int32_t openreg_status;
enum {
  OPENREG_OK = 0,
  OPENREG_NOT_READY = 1,       /* not an error: the work is still pending */
  OPENREG_INVALID_VALUE = 2,   /* an argument is wrong; last_message says which */
  OPENREG_INVALID_DEVICE = 3,  /* no such device */
  OPENREG_OUT_OF_MEMORY = 4,   /* the device (or host) has not enough free memory */
  OPENREG_UNSUPPORTED = 5,     /* this driver cannot do it, now or ever */
  OPENREG_NOT_INITIALIZED = 6, /* before init or after shutdown */
  OPENREG_FORKED = 7,          /* this process is a fork of the one that called init */
  OPENREG_LAUNCH_FAILED = 8,   /* a task on the stream failed; the error record has it */
  OPENREG_DEVICE_LOST = 9,     /* sticky: until device_reset (1.4), else until the process restarts */
  OPENREG_INTERNAL = 10,       /* a defect of the driver; last_message says what */
  OPENREG_CAPTURE = 11         /* the call is not legal while a stream is being captured; the capture is invalid now (1.2) */
};

/* Added to a finite timeout of a synchronising entry: the calling thread may run queued tasks although its time is limited. UINT64_MAX,
 * no limit, contains it. */
#define OPENREG_LEND_THREAD (UINT64_C(1) << 63)

/* An asynchronous failure, as a value. The caller owns the record and sets
 * struct_size; strings are NUL-terminated and truncated to fit. */
typedef struct openreg_error {
  uint32_t struct_size;
  openreg_status status;  /* LAUNCH_FAILED, DEVICE_LOST, ... */
  int32_t kind;           /* chosen by the failing host function; opaque to the driver; 0 = none */
  int32_t device;         /* where it happened */
  uint64_t stream_id;     /* the number that stream_info reports */
  uint64_t tag;           /* the failing launch's descriptor tag */
  char name[128];         /* the failing launch's descriptor name */
  char message[1024];
} openreg_error;

/* ---- Handles ---------------------------------------------------------------
 * Opaque, owned by the driver from create to destroy. */
typedef struct openreg_stream_t* openreg_stream;
typedef struct openreg_event_t* openreg_event;
typedef struct openreg_kernel_t* openreg_kernel;
typedef struct openreg_graph_t* openreg_graph;

typedef struct openreg_option {
  const char* key;
  const char* value;
} openreg_option;

/* What a device is. The caller sets struct_size. */
typedef struct openreg_device_info {
  uint32_t struct_size;
  char name[64];
  uint64_t total_memory_bytes;
  uint64_t allocation_granularity_bytes; /* mem_alloc sizes are rounded up to this */
  int32_t compute_units;                 /* kernels that can run at the same time */
  int32_t capability_major, capability_minor;
  int32_t priority_least, priority_greatest; /* lower number = more urgent, as in CUDA */
} openreg_device_info;

/* Whom a capture keeps from calls that wait, ask whether work has finished, allocate or free: CUDA's capture modes. */
enum {
  OPENREG_CAPTURE_GLOBAL = 0,       /* every thread */
  OPENREG_CAPTURE_THREAD_LOCAL = 1, /* the thread that began it */
  OPENREG_CAPTURE_RELAXED = 2       /* nobody */
};

/* What stream_capture_info reports. */
enum { OPENREG_NOT_CAPTURING = 0, OPENREG_CAPTURING = 1, OPENREG_CAPTURE_INVALID = 2 };

/* The name of an allocation or an event, for another process on the same machine: plain bytes that may travel any way. */
typedef struct openreg_ipc_handle {
  unsigned char bytes[64];
} openreg_ipc_handle;

/* A process that has memory on a device. */
typedef struct openreg_process {
  int64_t pid;
  uint64_t bytes; /* of device memory */
} openreg_process;

/* How busy a device is (1.5). The caller sets struct_size. */
typedef struct openreg_usage {
  uint32_t struct_size;
  uint32_t busy_permille; /* the part of the window in which a task ran on the device, in 1/1000 */
  uint32_t streams;       /* that exist */
  uint32_t processes;     /* that use the driver, with or without memory of the device */
} openreg_usage;

/* A snapshot of one stream, for stall reports. The caller sets struct_size. */
typedef struct openreg_stream_info {
  uint32_t struct_size;
  int32_t device;
  int32_t priority;
  uint64_t stream_id;        /* unique in the process, never reused */
  uint64_t queued;           /* tasks not yet finished, the running one included */
  uint64_t running_for_ns;   /* 0 when nothing runs */
  char running[128];         /* descriptor name of the running task, or "" */
} openreg_stream_info;

/* ---- Launch descriptors ----------------------------------------------------
 * Who is launching. The driver copies what it keeps before the launch returns,
 * except `name`, which must stay valid for the life of the process. */
typedef struct openreg_range {
  const void* base; /* device address */
  uint64_t bytes;
  int32_t write;    /* 0 = read, 1 = written */
} openreg_range;

/* What a range is to the operator: which of its bytes, and how. Dimensions in elements, strides not negative. */
typedef struct openreg_operand {
  uint32_t flags;         /* OPENREG_OPERAND_* */
  uint32_t element_bytes;
  int32_t dims;
  const int64_t* sizes;
  const int64_t* strides;
  const char* dtype;      /* for reports, static; NULL = bytes */
  uint64_t token;         /* names the launch to whoever tells later which elements it touched; 0 = nobody */
} openreg_operand;
enum {
  OPENREG_OPERAND_SOME = 1u, /* data decide which of the elements are touched */
  OPENREG_OPERAND_MOVED = 2u /* the values are moved on, not used */
};

typedef struct openreg_launch_desc {
  uint32_t struct_size;
  const char* name;           /* operator or copy name; NULL = "unnamed" */
  uint64_t tag;               /* opaque; comes back in the error record and in traces */
  uint64_t flops, bytes;      /* 0 = unknown; filled only when the table wants costs */
  const openreg_range* ranges;/* filled only when the table wants ranges; NULL = unknown */
  uint32_t range_count;
  void (*cleanup)(void* args);/* (optional) called exactly once with the copied args (null for copy and
                                 fill), after the task ran or was skipped, before its completion is
                                 visible; may not call the driver; default: nothing */
  const openreg_operand* operands; /* (optional) one for each range; default: every byte of the ranges */
} openreg_launch_desc;

/* Bits of openreg_driver.wants: what the launcher should take the trouble to fill. */
enum { OPENREG_WANT_RANGES = 1u, OPENREG_WANT_COSTS = 2u };

/* Host code in stream order. Runs on a thread of the driver's choice (a worker, or a thread
 * inside a synchronising entry), one at a time per stream. It may not call the driver and must not throw.
 * Returns OK or LAUNCH_FAILED; with the latter it has filled kind and message of *error (the driver
 * fills the rest). `args` is the driver's 16-byte aligned copy. */
typedef openreg_status (*openreg_host_func)(void* args, openreg_error* error);

/* ---- Trace records (1.4) ----------------------------------------------------
 * What a record tells of. Times are on the clock of its device. */
enum {
  OPENREG_TRACE_LAUNCH = 0, /* launch_kernel, launch_host_func */
  OPENREG_TRACE_COPY = 1,
  OPENREG_TRACE_FILL = 2,
  OPENREG_TRACE_RECORD = 3, /* event_record */
  OPENREG_TRACE_WAIT = 4,   /* stream_wait_event */
  OPENREG_TRACE_ALLOC = 5,  /* mem_alloc, mem_map, host_alloc */
  OPENREG_TRACE_FREE = 6,   /* mem_free, mem_unmap, host_free */
  OPENREG_TRACE_SYNC = 7,   /* device_, stream_ and event_synchronize: one record for each call */
  OPENREG_TRACE_GRAPH = 8   /* graph_launch */
};

/* One call of an entry, or one operation on a stream. A launch, copy, fill, record or wait gives two: the call's when it returns, and the operation's when it
 * has ended, within the call if nothing is queued for it; a graph launch gives one for each operation that it runs; all other calls give theirs only. */
typedef struct openreg_trace_record {
  uint32_t struct_size;
  int32_t kind;          /* OPENREG_TRACE_* */
  int32_t operation;     /* 0 = a call on a host thread; 1 = the operation on its stream */
  int32_t device;        /* -1 = host memory, or no such stream */
  uint64_t stream_id;    /* 0 = no stream */
  uint64_t correlation;  /* the same for a call and its operations; unique in the process, never 0 */
  uint64_t cause;        /* of a WAIT: the correlation of the record that it waits for, 0 = there was none; else 0 */
  uint64_t tag;          /* the descriptor's */
  const char* name;      /* the descriptor's, or the entry's; static */
  uint64_t begin_ns, end_ns; /* of an operation: when it ran; a WAIT begins when the stream is ready for it */
  uint64_t bytes;        /* of COPY, FILL, ALLOC, FREE */
  const void* address;   /* of ALLOC, FREE; the destination of COPY and FILL */
  int32_t dst_device, src_device; /* of COPY; -1 = host memory */
  openreg_status status; /* the call's; of an operation OK, or LAUNCH_FAILED or DEVICE_LOST when it failed or was skipped */
} openreg_trace_record;

/* Takes records: on the thread that made the call, before it returns, or on the one that ran the operation, before its completion is
 * visible; from several threads at once. The record is the driver's, for the time of the call. May not call the driver, block or throw. */
typedef void (*openreg_trace_sink)(void* context, const openreg_trace_record* record);

/* The grid of a kernel launch, CUDA's meaning: blocks of threads. */
typedef struct openreg_geometry {
  uint32_t grid[3];
  uint32_t block[3];
} openreg_geometry;

/* ---- The table -------------------------------------------------------------
 * Null entries are legal only where the comment begins with "(optional)". */
typedef struct openreg_driver {
  uint32_t struct_size; /* sizeof the driver's own openreg_driver */
  uint32_t major, minor;
  uint32_t wants;       /* OPENREG_WANT_* bits; constant after init */
  const char* name;     /* "sim", "null", ...; static */

  /* -- device -- */

  /* Starts the driver. Options are key/value strings, copied; a driver refuses an unknown key or a bad
   * value with INVALID_VALUE and a last_message that names it. Calling it again without shutdown:
   * INVALID_VALUE. May block for as long as hardware needs to start. One thread. */
  openreg_status (*init)(const openreg_option* options, size_t count);

  /* Stops the driver: waits at most timeout_ns for queued work, drops the rest (their cleanup runs), joins
   * its threads. A task that does not end, on whichever thread it runs, keeps what it uses. NOT_READY when work was dropped or does not
   * end. Handles and memory are invalid afterwards; init may follow. One thread. */
  openreg_status (*shutdown)(uint64_t timeout_ns);

  /* The sentence that explains this thread's last status other than OK and NOT_READY. Never null;
   * valid until this thread's next call. Works in every state. */
  const char* (*last_message)(void);

  openreg_status (*device_count)(int32_t* count);
  openreg_status (*device_info)(int32_t device, openreg_device_info* info);

  /* Waits until every task enqueued on every stream of the device before the call has finished.
   * Blocks at most timeout_ns (0 = poll, UINT64_MAX = no limit), then NOT_READY. A pending stream error is
   * reported here: its status is returned, *error filled (error may be null), see stream_synchronize. */
  openreg_status (*device_synchronize)(int32_t device, uint64_t timeout_ns, openreg_error* error);

  /* The device's monotonic clock, the one that events are timed on. */
  openreg_status (*device_clock)(int32_t device, uint64_t* now_ns);

  /* -- memory -- */

  /* Allocates `bytes` (> 0) of device memory, aligned to 512 bytes or more, contents undefined. The caller owns it.
   * OUT_OF_MEMORY when the capacity is used up. May block for a page-table update, never on device work. */
  openreg_status (*mem_alloc)(int32_t device, uint64_t bytes, void** ptr);

  /* Returns a pointer from mem_alloc. The caller has made sure that no queued task uses it. INVALID_VALUE for any
   * other pointer, also on the second call. */
  openreg_status (*mem_free)(int32_t device, void* ptr);

  openreg_status (*mem_info)(int32_t device, uint64_t* free_bytes, uint64_t* total_bytes);

  /* Which allocation an address lies in (any output may be null). INVALID_VALUE when it is not in live device memory. */
  openreg_status (*mem_query)(const void* ptr, int32_t* device, void** base, uint64_t* bytes);

  /* (optional) The kernel view: host code that runs in stream order reaches device memory at device address + *delta.
   * Constant after init. Default (null or UNSUPPORTED): the host cannot map device memory, and operators stage copies. */
  openreg_status (*mem_kernel_view)(int32_t device, intptr_t* delta);

  /* -- host memory -- */

  /* Page-locked host memory that every device can reach, aligned to 64 bytes or more. The caller owns it. */
  openreg_status (*host_alloc)(uint64_t bytes, void** ptr);
  openreg_status (*host_free)(void* ptr);

  /* Which host_alloc block an address lies in (outputs may be null). INVALID_VALUE when in none. */
  openreg_status (*host_query)(const void* ptr, void** base, uint64_t* bytes);

  /* -- copy -- */

  /* Enqueues a copy of `bytes` on the stream. dst_device/src_device: a device index, or -1 for host memory; the
   * stream may belong to either device. Addresses are device addresses, never kernel-view ones. Host memory
   * that is not from host_alloc is read or written when the task runs: the caller keeps it valid until then.
   * Ranges that overlap within one device: as memmove. INVALID_VALUE when a device range is not inside one live
   * allocation, or neither side is a device. desc may be null. May block while the queue is full. */
  openreg_status (*copy)(openreg_stream stream, void* dst, int32_t dst_device, const void* src, int32_t src_device,
                         uint64_t bytes, const openreg_launch_desc* desc);

  /* Enqueues setting `bytes` bytes of device memory to `value`. Statuses and blocking as copy. */
  openreg_status (*fill)(openreg_stream stream, void* dst, uint8_t value, uint64_t bytes, const openreg_launch_desc* desc);

  /* -- stream -- */

  /* Creates a stream; priorities outside the device's range are clamped. Cheap: hardware queues and threads start
   * with the first task. The caller owns it. */
  openreg_status (*stream_create)(int32_t device, int32_t priority, openreg_stream* stream);

  /* Destroys a stream after its queued tasks have finished (they still run). Does not wait. An error that nobody was
   * told of is printed to stderr. */
  openreg_status (*stream_destroy)(openreg_stream stream);

  /* OK when everything enqueued has finished, else NOT_READY. Never reports a task's error. Under a schedule that
   * delays work this entry makes progress, so that a polling loop ends. */
  openreg_status (*stream_query)(openreg_stream stream);

  /* Waits until every task enqueued on the stream before the call has finished. Blocks at most timeout_ns (0 = poll,
   * UINT64_MAX = no limit), then NOT_READY. When a task failed: returns the first failure's status and fills *error (may be
   * null); the failure counts as reported, and tasks enqueued from now on run again. Tasks that were enqueued between failure and
   * report are skipped. A calling thread may be used to run queued tasks; with a finite timeout only when nothing else
   * would run them, or when OPENREG_LEND_THREAD was added to the timeout, and then it stays until the task that it is in has ended. */
  openreg_status (*stream_synchronize)(openreg_stream stream, uint64_t timeout_ns, openreg_error* error);

  /* Later tasks of the stream wait for the event's latest record at the time of this call; a never recorded event is
   * complete. The stream inherits a failure that the record carries. Any device. */
  openreg_status (*stream_wait_event)(openreg_stream stream, openreg_event event);

  openreg_status (*stream_info)(openreg_stream stream, openreg_stream_info* info);

  /* -- event -- */

  /* Creates an event; timing != 0 makes it measure. The caller owns it. */
  openreg_status (*event_create)(int32_t device, int32_t timing, openreg_event* event);

  /* Destroys an event, also while a record or a wait is queued: those keep what they need. */
  openreg_status (*event_destroy)(openreg_event event);

  /* Records a new version of the event: it completes when everything enqueued on the stream before has finished.
   * Recording again before the last version completed is legal; the event then means the new version. Any stream. */
  openreg_status (*event_record)(openreg_event event, openreg_stream stream);

  /* OK when the latest record completed or there was none, else NOT_READY. Never reports a task's error. Makes progress
   * as stream_query does. */
  openreg_status (*event_query)(openreg_event event);

  /* Waits for the latest record; timeout, error report and reuse of the calling thread as in stream_synchronize. */
  openreg_status (*event_synchronize)(openreg_event event, uint64_t timeout_ns, openreg_error* error);

  /* Nanoseconds on the device clock from start's completion to end's, negative when end came first. INVALID_VALUE when
   * one does not measure or was never recorded, or they belong to two devices; NOT_READY when one is pending. */
  openreg_status (*event_elapsed)(openreg_event start, openreg_event end, int64_t* elapsed_ns);

  /* -- launch -- */

  /* Makes device code callable. `image` is the driver's own format (the simulator takes a pointer to an
   * openreg_sim_kernel, see driver/sim/sim_kernel.h, with bytes = 0); UNSUPPORTED when it is another one. The caller owns the handle. */
  openreg_status (*kernel_load)(int32_t device, const char* name, const void* image, uint64_t bytes, openreg_kernel* kernel);
  openreg_status (*kernel_unload)(openreg_kernel kernel);

  /* Enqueues device code. `args` are flat bytes (size may be 0), copied before the call returns. INVALID_VALUE for a
   * zero-sized grid or a kernel of another device. desc may be null. May block while the queue is full. */
  openreg_status (*launch_kernel)(openreg_stream stream, openreg_kernel kernel, const openreg_geometry* geometry,
                                  const void* args, uint64_t size, const openreg_launch_desc* desc);

  /* Enqueues host code; otherwise as launch_kernel. When this returns an error, `desc->cleanup` is not called. */
  openreg_status (*launch_host_func)(openreg_stream stream, openreg_host_func fn, const void* args, uint64_t size,
                                     const openreg_launch_desc* desc);

  /* -- memory that grows (1.1) -- */

  /* (optional) Reserves `bytes` of device addresses without memory, a multiple of the allocation granularity, aligned to
   * 2 MiB or more. The caller owns them. OUT_OF_MEMORY when no range of that length is left. Default (null or UNSUPPORTED):
   * memory comes from mem_alloc only. A driver has all four entries or none. */
  openreg_status (*mem_reserve)(int32_t device, uint64_t bytes, void** ptr);

  /* (optional) Gives a reservation back. INVALID_VALUE for any other pointer, and while memory is mapped in it. Default: as mem_reserve. */
  openreg_status (*mem_unreserve)(int32_t device, void* ptr);

  /* (optional) Puts memory, contents undefined, behind `bytes` of a reservation from `ptr` on, multiples of the granularity. Copies, fills and
   * mem_query take memory that is mapped side by side in one reservation for one allocation. OUT_OF_MEMORY when the capacity is
   * used up, INVALID_VALUE when the range leaves the reservation or part of it is mapped. Blocks as mem_alloc. Default: as mem_reserve. */
  openreg_status (*mem_map)(int32_t device, void* ptr, uint64_t bytes);

  /* (optional) Takes the memory away again; all of the range is mapped, and the caller has made sure that no queued task uses it.
   * INVALID_VALUE otherwise. Default: as mem_reserve. */
  openreg_status (*mem_unmap)(int32_t device, void* ptr, uint64_t bytes);

  /* -- processes (1.1) -- */

  /* (optional) The processes of this user that hold memory of the device, this one included: at most *count into `processes`; *count
   * becomes how many there are. Processes that the driver may not look at are left out. Default (null or UNSUPPORTED): unknown. */
  openreg_status (*device_processes)(int32_t device, openreg_process* processes, uint32_t* count);

  /* -- between processes (1.1) -- */

  /* (optional) Names the allocation, or the memory mapped side by side in a reservation, that begins at `ptr` as mem_query has it. The name is
   * good for the bytes of this moment until they are freed or unmapped. OUT_OF_MEMORY when
   * the system cannot keep it shareable, INVALID_VALUE for any other pointer and for imported memory. Default (null or UNSUPPORTED): device
   * memory stays in its process. A driver has all three mem_ entries of this group or none. */
  openreg_status (*mem_export)(int32_t device, void* ptr, openreg_ipc_handle* handle);

  /* (optional) Maps the memory that a handle names; each call makes a mapping of its own, also in the exporting process. The caller owns
   * it and gives it to mem_close. It uses no capacity, and its bytes stay when the exporter frees them or ends. Copies, fills and mem_query take it as
   * an allocation. INVALID_VALUE when the handle names nothing any more, INVALID_DEVICE when this process has no such
   * device, OUT_OF_MEMORY when no addresses are left. Default: as mem_export. */
  openreg_status (*mem_import)(const openreg_ipc_handle* handle, int32_t* device, void** ptr, uint64_t* bytes);

  /* (optional) Ends a mapping of mem_import. The caller has made sure that no queued task uses it. INVALID_VALUE for any other pointer. Default: as
   * mem_export. */
  openreg_status (*mem_close)(int32_t device, void* ptr);

  /* (optional) Creates an event without timing that other processes can import. Every process may record it and wait for it; it
   * stands for the latest record of all. A failure reaches waiters of the recording process only. Default (null or UNSUPPORTED): events
   * stay in their process. A driver has all three event_ entries of this group or none. */
  openreg_status (*event_create_shared)(int32_t device, openreg_event* event);

  /* (optional) Names an event of event_create_shared or event_import, while one of its events lives in this process. INVALID_VALUE for another
   * event. Default: as event_create_shared. */
  openreg_status (*event_export)(openreg_event event, openreg_ipc_handle* handle);

  /* (optional) The event that a handle names, on the device that it was created for. The caller owns it. INVALID_VALUE when the handle names
   * nothing any more, INVALID_DEVICE when this process has no such device. A wait for a record whose process ended first is a failure of the
   * waiting stream, or of event_synchronize. Default: as event_create_shared. */
  openreg_status (*event_import)(const openreg_ipc_handle* handle, int32_t* device, openreg_event* event);

  /* -- graphs (1.2) --
   * Between capture_begin and capture_end nothing that is enqueued on the stream runs: launches, copies, fills, event records and waits
   * become operations of a graph. Another stream joins the capture when it waits for an event that was recorded in it, and has to be joined
   * again: capture_end needs the origin stream to wait, directly or not, for the last operation of each. A call that cannot be part of
   * it returns CAPTURE and makes the capture invalid; from then on every operation of it returns CAPTURE, and only capture_end helps. Such calls
   * are: synchronize, query or destroy a capturing stream; synchronize or query an event that was recorded in a capture; device_synchronize of a
   * device with a capturing stream; a wait of a capturing stream for an event recorded outside, or the other way round; and, for threads that the
   * capture's mode keeps from it, the entries mem_alloc, mem_free, mem_reserve, mem_unreserve, mem_map, mem_unmap, host_alloc, host_free,
   * device_synchronize, and every synchronize and query of streams and events. A driver has all eight entries or none. */

  /* (optional) Begins a capture on the stream. INVALID_VALUE when it is being captured, or for an unknown mode. Default (null or UNSUPPORTED):
   * no graphs. */
  openreg_status (*capture_begin)(openreg_stream stream, int32_t mode);

  /* (optional) Ends the capture that began on the stream; with a mode other than RELAXED on the thread that began it. INVALID_VALUE, and the
   * capture goes on, when it is another stream or thread. CAPTURE when the capture is invalid or a stream is not joined: it is over
   * then, and last_message has the first reason. The caller owns the graph. With a null `graph` any thread drops the capture, valid or not: OK,
   * and it is over; from a driver that cannot do this INVALID_VALUE, and the capture goes on. Default: as capture_begin. */
  openreg_status (*capture_end)(openreg_stream stream, openreg_graph* graph);

  /* (optional) Whether the stream is being captured, and the capture's number, unique in the process (outputs may be null). Default: as
   * capture_begin. */
  openreg_status (*stream_capture_info)(openreg_stream stream, int32_t* state, uint64_t* capture);

  /* (optional) Replaces the calling thread's own mode, GLOBAL at first, and returns the one before in *mode: RELAXED frees the thread from
   * all captures' restrictions, THREAD_LOCAL from those that other threads began. Default: as capture_begin. */
  openreg_status (*capture_exchange_mode)(int32_t* mode);

  /* (optional) Enqueues every operation of the graph: those of the origin stream on `stream`, the others on streams of the graph's own. A
   * graph runs once at a time: a launch waits for the one before. Arguments are those of the capture, byte for byte; their cleanup
   * runs when the graph was destroyed and its last launch has finished. INVALID_VALUE when the stream is on another device than the
   * origin, CAPTURE when it is being captured. Blocking as launch_kernel. Default: as capture_begin. */
  openreg_status (*graph_launch)(openreg_graph graph, openreg_stream stream);

  /* (optional) Destroys a graph; launches that are queued still run. Default: as capture_begin. */
  openreg_status (*graph_destroy)(openreg_graph graph);

  /* (optional) Makes the graph run what `source` captured, from its next launch on, and destroys `source`. INVALID_VALUE, and nothing changes,
   * unless both have the same operations, by kind, name and stream, in the same order. Default: as capture_begin. */
  openreg_status (*graph_update)(openreg_graph graph, openreg_graph source);

  /* (optional) Writes the graph to a file in the DOT language: an ellipse for each operation with its name, an edge for each order.
   * INVALID_VALUE when the file cannot be written. Default: as capture_begin. */
  openreg_status (*graph_dump)(openreg_graph graph, const char* path);

  /* -- options that change (1.3) -- */

  /* (optional) Replaces the value of an option of init while the driver runs; null leaves it. The value that held until then comes in `before`
   * (may be null), NUL-terminated. NOT_READY, and nothing changes, while work is queued or running: no task sees two values; synchronize and
   * try again. UNSUPPORTED for an option that cannot change, INVALID_VALUE for an unknown option, a bad value, a `before` of too few bytes, and
   * for a change while a stream is being captured (the capture stays valid). Default (null or UNSUPPORTED): options are constant. */
  openreg_status (*option_exchange)(const char* key, const char* value, char* before, uint64_t bytes);

  /* -- recovery (1.4) --
   * A device is lost when its hardware failed or device_lose said so, and stays lost until device_reset. Then every task that is queued on
   * its streams is dropped (its cleanup runs), events recorded on them complete with the failure, and the entries that enqueue work on the device,
   * allocate its memory or wait for it return DEVICE_LOST; waits fill *error. Entries that free, destroy or look still work. A driver has both
   * entries or none. */

  /* (optional) Gives the device up: it is lost now, for `reason`, which last_message and error records repeat. A task that is running is not
   * waited for: it is abandoned, and waits in other threads return. OK also for a device that is lost; its first reason stays. Default (null or
   * UNSUPPORTED): only hardware loses a device. */
  openreg_status (*device_lose)(int32_t device, const char* reason);

  /* (optional) Brings a lost device back. Handles stay valid, streams are empty, the contents of memory are undefined. NOT_READY, and the
   * device stays lost, while an abandoned task still runs: it could write to memory that others get. OK and nothing for a device that is not
   * lost. INVALID_VALUE while one of its streams is being captured. Default: a lost device needs a restart of the process. */
  openreg_status (*device_reset)(int32_t device);

  /* -- trace (1.4) -- */

  /* (optional) Replaces the sink of trace records, null = none, and returns when no thread is in the one before. Operations that were queued
   * before give a record when they end; shutdown sets null after the last. INVALID_VALUE inside a sink. Default (null or UNSUPPORTED): no trace. */
  openreg_status (*trace_exchange)(openreg_trace_sink sink, void* context);

  /* -- usage (1.5) -- */

  /* (optional) Looks at the device for window_ns, at most ten seconds (0 = one look), and says how busy it was, over all processes of this user
   * that the driver may look at. Blocks for the window. INVALID_VALUE for a longer one. Default (null or UNSUPPORTED): unknown. */
  openreg_status (*device_usage)(int32_t device, uint64_t window_ns, openreg_usage* usage);
} openreg_driver;

/* The one exported symbol. Returns OK and the table (static storage of the driver), or UNSUPPORTED when the driver does not
 * implement want_major. Any thread. */
#define OPENREG_GET_DRIVER_SYMBOL "openreg_get_driver"
typedef openreg_status (*openreg_get_driver_fn)(uint32_t want_major, const openreg_driver** table);

#ifdef __cplusplus
}
#endif
#endif /* OPENREG_HAL_H */
