"""The lists of exceptions name tests that exist, and give reasons. Needs nothing."""

import ast
import pathlib

import exceptions

HERE = pathlib.Path(__file__).parent


def test_every_listed_name_is_a_test():
    present = {f"{path.name}::{node.name}" for path in HERE.glob("test_*.py")
               for node in ast.parse(path.read_text()).body if isinstance(node, ast.FunctionDef)}
    listed = {name for table in (exceptions.UNSUPPORTED, exceptions.EXPECTED_FAILURES) for names in table.values() for name in names}
    assert listed <= present, f"no such tests: {sorted(listed - present)}"


def test_every_listed_name_has_a_reason_and_stands_in_one_list():
    for driver in exceptions.UNSUPPORTED:
        assert all(len(reason) > 10 for reason in exceptions.UNSUPPORTED[driver].values())
        assert all(len(reason) > 10 for reason in exceptions.EXPECTED_FAILURES.get(driver, {}).values())
        assert not set(exceptions.UNSUPPORTED[driver]) & set(exceptions.EXPECTED_FAILURES.get(driver, {}))
