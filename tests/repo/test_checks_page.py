"""docs/conformance-checks.md has every level and every check, as the script makes them. Needs torch."""

import generate_checks


def test_the_page_is_what_the_script_makes():
    text = generate_checks.PAGE.read_text()
    assert text == generate_checks.with_tables(text), "run python tests/repo/generate_checks.py"


def test_the_script_replaces_the_tables_and_nothing_else():
    marks = [mark for pair in (generate_checks.LEVELS, generate_checks.CHECKS) for mark in pair]
    page = f"before\n{marks[0]}\nOUTDATED\n{marks[1]}\nbetween\n{marks[2]}\nOUTDATED\n{marks[3]}\nafter\n"
    written = generate_checks.with_tables(page)
    assert written.startswith("before\n") and "\nbetween\n" in written and written.endswith("after\n") and "OUTDATED" not in written
    assert "| `guard.set_device_index_changes_the_current_device` |" in written and "| L0 | driver |" in written
