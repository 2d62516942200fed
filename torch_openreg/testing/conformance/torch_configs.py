"""The gap file as the dictionaries that torch's `PrivateUse1TestBase.set_test_configs` takes.

    PrivateUse1TestBase.set_test_configs(**torch_test_configs("mychip.toml"))

`openreg conformance gaps FILE --test-configs OUT.py` writes them as a file of their own, for a repository without this package.
"""

import sys
from fnmatch import fnmatchcase
from pathlib import Path

from torch_openreg.testing.conformance import gaps as gap_files
from torch_openreg.testing.conformance.torch_tests import tests_of

HEAD = '''"""Made from {name} by `openreg conformance gaps {name} --test-configs`: PrivateUse1TestBase.set_test_configs(**CONFIGS)."""

import unittest

import torch
from torch.testing._internal.common_methods_invocations import DecorateInfo

'''


def torch_test_configs(path) -> dict:
    """{"op_overrides", "op_allowlist", "test_exclusions"} for a gap file. Imports torch's operator database; raises GapFileError.

    unsupported skips a test with the reason, expected_failure expects it to fail. An entry for every mode reaches every test of its
    operator; expect a failure of it with a mode, because a test that passes is then an unexpected success. Entries of tests are skipped
    whatever their kind, and name a whole class or a test as its file writes it. Entries of modules, optimizers,
    checks and models have no place in these dictionaries and are left out.
    """
    space: dict = {}
    exec(compile(source(path), str(path), "exec"), space)
    return space["CONFIGS"]


def source(path) -> str:
    """The text of a Python file that defines CONFIGS."""
    entries = sorted(gap_files.read(Path(path)))
    exclusions = _exclusions(path, entries)
    from torch.testing._internal.common_methods_invocations import op_db  # after what refuses the file: this takes seconds

    overrides: dict[str, list[str]] = {}
    for gap in entries:
        for name in [op.full_name for op in op_db if gap.op and fnmatchcase(op.full_name, gap.op)]:
            overrides.setdefault(name, []).extend(_decorators(gap))
    lines = [HEAD.format(name=Path(path).name), "CONFIGS = {\n", '    "op_overrides": {\n']
    for name, decorators in sorted(overrides.items()):
        lines.append(f"        {name!r}: [\n")
        lines += [f"            {text},\n" for text in decorators]
        lines.append("        ],\n")
    lines.append('    },\n    "op_allowlist": None,\n    "test_exclusions": {\n')
    lines += [f"        {name!r}: {_exclusion(tests)},\n" for name, tests in sorted(exclusions.items())]
    lines.append("    },\n}\n")
    return "".join(lines)


def _exclusions(path, entries) -> dict[str, list[str]]:
    """Class -> names of tests, or "*" among them for all."""
    found: dict[str, list[str]] = {}
    for gap in entries:
        if gap.test:
            class_name, _, test = gap.test.partition(".")
            if "*" in class_name or ("*" in test and test != "*"):
                raise gap_files.GapFileError(f"{path}: {gap.test}: torch's test_exclusions has names, or all tests of a class, and no other globs")
            found.setdefault(class_name, []).append(test)
    return found


def _decorators(gap) -> list[str]:
    from torch_openreg.testing.conformance.rows import DTYPES

    decorator = f"unittest.skip({gap.reason!r})" if gap.kind == "unsupported" else "unittest.expectedFailure"
    chosen = [name for name in DTYPES if fnmatchcase(name, gap.dtype)]
    dtypes = "" if gap.dtype == "*" else f", dtypes=({' '.join(f'torch.{name},' for name in chosen)})"
    if gap.mode == "*":
        return [f"DecorateInfo({decorator}{dtypes})"]
    places = [test.split(".") for test in tests_of(gap.mode)]
    return [f"DecorateInfo({decorator}, {class_name!r}, {test!r}{dtypes})" for class_name, test in places]


def _exclusion(tests: list[str]) -> str:
    """torch takes names, or "*" for the whole class."""
    return repr("*") if "*" in tests else repr(sorted(tests))



def main() -> int:
    """GAP_FILE OUT: writes the file. Started by `openreg conformance gaps`; exit status 2 when the gap file cannot be used."""
    path, out = map(Path, sys.argv[1:])
    try:
        text = source(path)
    except gap_files.GapFileError as error:
        print(error, file=sys.stderr)
        return 2
    out.write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
