"""Options that several actions take, and the types of options: each returns a value or raises ArgumentTypeError with a sentence."""

import argparse
import os
import re

from torch_openreg.testing.conformance import databases, pack, rows


def add_device(parser) -> None:
    """The options that say which device to run on, with which samples."""
    parser.add_argument("--device", default="openreg", help="any device that torch knows, as in openreg:1 (default: %(default)s)")
    parser.add_argument("--import", dest="module", default="", metavar="MODULE", help="module that registers the device")
    parser.add_argument("--driver", type=driver_file, metavar="PATH",
                        help="a driver library with openreg's HAL, for --device openreg (default: OPENREG_DRIVER, else the simulator)")
    parser.add_argument("--samples", type=positive, metavar="N", help="samples per row")
    parser.add_argument("--seed", type=int, default=0, help="seed of samples and random operators (default: 0)")


def add_packs(parser) -> None:
    parser.add_argument("--pack", type=pack_files, default=(), metavar="PACK,...",
                        help="model packs, files or names, for level L6 (default: all that ship, "
                        f"{', '.join(pack.shipped())})")


def pack_files(text: str) -> tuple[str, ...]:
    return checked(pack.checked)(names(text))


def use_driver(arguments) -> None:
    """Makes --driver the one that worker processes load."""
    if arguments.driver:
        os.environ["OPENREG_DRIVER"] = arguments.driver


def driver_file(text: str) -> str:
    if not os.path.isfile(text):
        raise argparse.ArgumentTypeError(f"there is no driver library {text}")
    return os.path.abspath(text)


def checked(parse):
    def convert(text):
        try:
            return parse(text)
        except ValueError as error:
            raise argparse.ArgumentTypeError(str(error)) from error

    return convert


def row_id(text: str) -> str:
    checked(rows.parse_id)(text)
    return text


def names(text: str) -> tuple[str, ...]:
    return tuple(name for name in (part.strip() for part in text.split(",")) if name)


def dtype_names(text: str) -> tuple[str, ...]:
    found = tuple(name.removeprefix("torch.") for name in names(text))
    for name in found:
        if problem := databases.unknown("dtype", name, databases.DTYPES):
            raise argparse.ArgumentTypeError(problem)
    return found


def mode_names(text: str) -> tuple[str, ...]:
    found, every = names(text), databases.modes_of(databases.DATABASES)
    if found == ("all",):
        return every
    if unknown := [name for name in found if name not in every]:
        raise argparse.ArgumentTypeError(f"unknown mode {', '.join(unknown)}; the modes are {', '.join(every)}")
    return found


def database_names(text: str) -> tuple[str, ...]:
    found, every = names(text), tuple(databases.DATABASES)
    if found == ("all",):
        return every
    if unknown := [name for name in found if name not in every]:
        raise argparse.ArgumentTypeError(f"unknown database {', '.join(unknown)}; the databases are {', '.join(every)}")
    return found


def positive(text: str) -> int:
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from 1 up")
    return int(text)


def seconds(text: str) -> float:
    match = re.fullmatch(r"(\d+(?:\.\d+)?)(s|m|h|)", text)
    if not match or float(match[1]) == 0:
        raise argparse.ArgumentTypeError(f"{text!r} is not a time; write 90, 90s, 5m or 1h")
    return float(match[1]) * {"": 1, "s": 1, "m": 60, "h": 3600}[match[2]]


def cpus() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
