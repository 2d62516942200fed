"""junit.xml: a test suite for each level and family, a test case for each row, in the form that CI systems read.

A wrong value, a missing kernel and an error are failures, a crash and a hang are errors. What the gap file covers is skipped with its
reason, as is what was not run; an unexpected pass is a failure.
"""

from xml.etree import ElementTree as xml

from ..result import RowResult
from .cause import repro_command
from .printable import printable
from .score import family, level, ordered

FAILURES = ("mismatch", "unsupported", "error")


def text(results, *, properties: dict[str, str], options: str, exit_problems=()) -> str:
    """The XML text. properties: facts about the run, in every suite. options: those of repro commands."""
    suites: dict[str, list[RowResult]] = {}
    for result in ordered(results):
        suites.setdefault(f"{level(result)}.{family(result)}", []).append(result)
    root = xml.Element("testsuites", name="openreg conformance")
    for name, members in suites.items():
        suite = _suite(root, name, properties)
        for result in members:
            _case(suite, name, result, options)
    if exit_problems:
        suite = _suite(root, "workers", properties)
        for number, problem in enumerate(exit_problems, 1):
            case = xml.SubElement(suite, "testcase", classname="workers", name=f"worker {number}", time="0.000")
            xml.SubElement(case, "error", type="crash", message=printable(problem))
    for suite in root:
        _count(suite, suite)
    _count(root, root)
    xml.indent(root)
    return xml.tostring(root, encoding="unicode", xml_declaration=False).join(['<?xml version="1.0" encoding="UTF-8"?>\n', "\n"])


def _suite(root, name: str, properties: dict[str, str]):
    suite = xml.SubElement(root, "testsuite", name=name)
    listed = xml.SubElement(suite, "properties")
    for key, value in properties.items():
        xml.SubElement(listed, "property", name=key, value=printable(value))
    return suite


def _case(suite, classname: str, result: RowResult, options: str) -> None:
    case = xml.SubElement(suite, "testcase", classname=classname, name=result.id, time=f"{result.seconds:.3f}")
    sentence = printable(result.sentence)
    if result.gap == "covered":
        xml.SubElement(case, "skipped", message=f"expected failure: {printable(result.gap_reason)}")
    elif result.gap == "unexpected pass":
        xml.SubElement(case, "failure", type="unexpected pass", message=f"passes, and the gap file says: {printable(result.gap_reason)}")
    elif result.failing:
        kind = "failure" if result.outcome in FAILURES else "error"
        found = xml.SubElement(case, kind, type=result.outcome, message=sentence)
        found.text = "\n".join(filter(None, [sentence, printable(result.sample_summary), repro_command(result, options)]))
    elif result.outcome != "pass":
        reason = sentence if result.outcome == "skip" else f"the CPU cannot run it: {sentence}"
        xml.SubElement(case, "skipped", message=reason)


def _count(element, under) -> None:
    """Writes onto the element how many test cases lie under it and what became of them."""
    cases = list(under.iter("testcase"))
    element.set("tests", str(len(cases)))
    for attribute, tag in (("failures", "failure"), ("errors", "error"), ("skipped", "skipped")):
        element.set(attribute, str(sum(case.find(tag) is not None for case in cases)))
    element.set("time", f"{sum(float(case.get('time')) for case in cases):.3f}")
