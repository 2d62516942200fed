"""Every wrong program is caught, with the operators named, every right twin is accepted, under every schedule; and a right twin that
loses any one of its ordering lines is caught too."""

import ast
import sys

import host_and_graphs  # noqa: F401
import lifetimes  # noqa: F401
import museum
import pytest
import races  # noqa: F401
import torch
import torch_openreg  # noqa: F401

ORDERING = {"wait_stream", "wait_event", "record_stream", "synchronize"}


def run(program, modes):
    """The report on a program."""
    torch.openreg.synchronize()
    torch.openreg.empty_cache()
    room = museum.Room()
    with torch.openreg.sanitizer.collect(modes) as report:
        program(room)
    return report


@pytest.mark.parametrize("exhibit", museum.EXHIBITS, ids=lambda exhibit: exhibit.name)
def test_the_wrong_program_is_caught(exhibit):
    report = run(exhibit.wrong, exhibit.modes)
    assert exhibit.rule in report.kinds, str(report)
    found = next(finding for finding in report.findings if finding.kind == exhibit.rule)
    assert found.remedy and (found.allocation or found.accesses)
    stacks = [found.allocation_stack, *(access.stack for access in found.accesses)]
    assert any("in wrong" in stack for stack in stacks), str(report)


@pytest.mark.parametrize("exhibit", museum.EXHIBITS, ids=lambda exhibit: exhibit.name)
def test_the_right_twin_is_accepted(exhibit):
    report = run(exhibit.right, "races,lifetime,init,bounds,leaks" if exhibit.rule == "leak" else "races,lifetime,init,bounds")
    assert not report, str(report)


def mutants():
    """(exhibit, source of its right twin without one ordering line, the line)."""
    for exhibit in museum.EXHIBITS:
        source = museum.source_of(exhibit.right)
        lines = source.splitlines()
        for node in ast.walk(ast.parse(source)):
            call = node.value if isinstance(node, ast.Expr) else None
            if isinstance(call, ast.Call) and isinstance(call.func, ast.Attribute) and call.func.attr in ORDERING:
                kept = [line for number, line in enumerate(lines, 1) if number != node.lineno]
                yield pytest.param(exhibit, "\n".join(kept), id=f"{exhibit.name}-{lines[node.lineno - 1].strip()}")


@pytest.mark.parametrize("exhibit,source", list(mutants()))
def test_a_right_twin_without_one_of_its_ordering_lines_is_caught(exhibit, source):
    names = dict(vars(sys.modules[exhibit.right.__module__]))
    exec(compile(source, "<mutant>", "exec"), names)  # noqa: S102
    try:
        report = run(names["right"], exhibit.modes)
    except torch.AcceleratorError as error:
        assert "capture" in str(error)  # the driver itself refuses a graph whose streams are not joined
        return
    assert report, source


def test_the_museum_has_thirty_pairs_of_rule_and_family():
    pairs = {(exhibit.rule, exhibit.family) for exhibit in museum.EXHIBITS}
    assert len(pairs) == len(museum.EXHIBITS) >= 30 and all(exhibit.source for exhibit in museum.EXHIBITS)
