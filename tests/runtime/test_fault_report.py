"""A host access to device memory ends the process, and first says which block it was, and with history on which line allocated it."""

import signal

READ = """
    import ctypes, torch, torch_openreg
    def allocate():
        return torch.empty(1000, device="openreg:{device}")  # the line that made it
    {history}
    kept = torch.zeros(700, device="openreg:{device}")
    tensor = allocate()
    torch.openreg.synchronize(tensor.device)
    address = tensor.data_ptr()
    {afterwards}
    print(ctypes.c_float.from_address(address + 400).value)
"""


def fault(python, device, history="", afterwards=""):
    result = python(READ.format(device=device.index, history=history, afterwards=afterwards), check=False)
    assert result.returncode == -signal.SIGSEGV and result.stdout == ""
    (line,) = [line for line in result.stderr.splitlines() if line.startswith("torch_openreg: ")]
    return line


def test_a_host_read_dies_and_names_the_block(device, python):
    line = fault(python, device)
    assert "lies 400 bytes into the block 0x" in line and "of 4096 bytes (4000 requested)" in line
    assert f"on device {device.index}, in use" in line and "_record_memory_history() before the allocation" in line


def test_a_host_read_names_the_python_line_when_history_is_on(device, python):
    line = fault(python, device, history="torch.openreg.memory._record_memory_history()")
    assert line.endswith("in use, allocated at <string>:4 in allocate.")
    line = fault(python, device, history="torch.openreg.memory._record_memory_history('state', stacks='python')")
    assert line.endswith("allocated at <string>:4 in allocate.")


def test_the_line_is_the_programs_and_not_torchs(python):
    result = python(
        """
        import ctypes, torch, torch_openreg
        torch.openreg.memory._record_memory_history()
        layer = torch.nn.Linear(10, 10, device="openreg")
        ctypes.c_float.from_address(layer.weight.data_ptr()).value
        """,
        check=False,
    )
    assert result.returncode == -signal.SIGSEGV and "allocated at <string>:4 in <module>.\n" in result.stderr


def test_a_host_read_of_freed_memory_says_so(device, python):
    line = fault(python, device, afterwards="del tensor")
    assert line.endswith(f"on device {device.index}, free: its tensor is gone.")


def test_a_fault_elsewhere_prints_no_block(python):
    result = python(
        """
        import ctypes, torch, torch_openreg
        torch.zeros(3, device="openreg")
        ctypes.c_int.from_address(64).value
        """,
        check=False,
    )
    assert result.returncode == -signal.SIGSEGV and "torch_openreg:" not in result.stderr


def test_a_handler_that_was_there_before_is_called_too(python):
    result = python(
        """
        import faulthandler; faulthandler.enable()
        import ctypes, torch, torch_openreg
        tensor = torch.zeros(3, device="openreg")
        ctypes.c_int.from_address(tensor.data_ptr()).value
        """,
        check=False,
    )
    assert result.returncode == -signal.SIGSEGV
    assert "torch_openreg: 0x" in result.stderr and "Fatal Python error: Segmentation fault" in result.stderr


def test_a_host_read_deep_in_a_large_block_finds_its_begin(device, python):
    result = python(
        f"""
        import ctypes, torch, torch_openreg
        blocks = [torch.empty(64 << 20, dtype=torch.uint8, device="openreg:{device.index}") for _ in range(2)]
        small = torch.empty(100, device="openreg:{device.index}")
        print(hex(blocks[1].data_ptr()), flush=True)
        ctypes.c_int.from_address(blocks[1].data_ptr() + (50 << 20)).value
        """,
        check=False,
    )
    assert result.returncode == -signal.SIGSEGV
    assert f"lies {50 << 20} bytes into the block {result.stdout.strip()} of {64 << 20} bytes" in result.stderr
