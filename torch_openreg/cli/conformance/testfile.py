"""`openreg conformance testfile`: a device-generic test file on the CPU and on a device."""

import sys
from pathlib import Path

from torch_openreg.testing.conformance import testfile
from torch_openreg.testing.conformance.pool import RunFailed

from . import options


def add_parser(actions) -> None:
    tests = actions.add_parser("testfile", help="run a device-generic test file on the CPU and on a device, and show what differs",
                               description="Runs the tests that a file makes with instantiate_device_type_tests, on the CPU and on a device.")
    tests.add_argument("file", type=Path, metavar="FILE", help="a test file, as it is")
    tests.add_argument("--device", default="openreg", help="as in openreg:1 (default: %(default)s)")
    tests.add_argument("--import", dest="module", default="", metavar="MODULE", help="module that registers the device")
    tests.add_argument("--tests", type=options.names, default=(), metavar="GLOB,...", help="tests by name, as in TestMine.test_x_float32")
    tests.add_argument("--timeout", type=options.seconds, default=60.0, metavar="TIME", help="limit for one test (default: 60s)")
    tests.set_defaults(handler=handle)


def handle(arguments) -> int:
    try:
        return testfile.compare(arguments.file, arguments.device, arguments.module, arguments.tests, arguments.timeout)
    except RunFailed as error:
        print(error, file=sys.stderr)
        return 2
