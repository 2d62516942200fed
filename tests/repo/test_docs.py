"""The documentation is true: its Python blocks run, and its links lead somewhere.

The ```python blocks of one page run in order in one process, so that later blocks see the names of earlier ones.
```console and other blocks are not run. Needs the built package for the blocks, nothing for the links.
"""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])
BLOCK = re.compile(r"^```(\w*)[^\n]*\n(.*?)^```\s*$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"(?<!!)\[[^\]]+\]\(([^)\s]+)\)|!\[[^\]]*\]\(([^)\s]+)\)")


def name(page):
    return str(page.relative_to(ROOT))


def blocks(page, language):
    """(line number of the first code line, code) for each block of a language."""
    text = page.read_text()
    for match in BLOCK.finditer(text):
        if match[1] == language:
            yield text.count("\n", 0, match.start()) + 2, match[2]


def without_blocks(page):
    return BLOCK.sub("", page.read_text())


def anchors(page):
    """The anchors that a page offers, as GitHub makes them from headings."""
    found = []
    for heading in re.findall(r"^#+ +(.*)$", without_blocks(page), re.MULTILINE):
        anchor = re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-")
        repeats = sum(1 for other in found if re.fullmatch(re.escape(anchor) + r"(-\d+)?", other))
        found.append(f"{anchor}-{repeats}" if repeats else anchor)
    return found


@pytest.mark.parametrize("page", [page for page in PAGES if any(blocks(page, "python"))], ids=name)
def test_the_python_blocks_of_a_page_run(page, python):
    pieces = [
        f"exec(compile({chr(10) * (line - 1) + code!r}, {name(page)!r}, 'exec'), page)" for line, code in blocks(page, "python")
    ]
    python("page = {'__name__': '__main__'}", *pieces, timeout=300)


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_the_links_of_a_page_lead_somewhere(page):
    missing = []
    for match in LINK.finditer(without_blocks(page)):
        target = match[1] or match[2]
        if re.match(r"[a-z]+:", target):
            continue
        file, _, anchor = target.partition("#")
        place = (page.parent / file).resolve() if file else page
        if not place.exists() or (anchor and anchor not in anchors(place)):
            missing.append(target)
    assert not missing


def test_every_page_under_docs_is_linked_from_another_page():
    linked = set()
    for page in PAGES:
        for match in LINK.finditer(without_blocks(page)):
            linked.add((page.parent / (match[1] or match[2]).partition("#")[0]).resolve())
    assert not [name(page) for page in PAGES if page.parent != ROOT and page not in linked]
