"""Pages in headless Chromium: the `browse` fixture, and the elements of a page. Without Chromium tests that browse are skipped."""

import re
import shutil
import subprocess
from html.parser import HTMLParser

import pytest

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "chrome"))), None)
OPTIONS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--host-resolver-rules=MAP * ~NOTFOUND", "--window-size=1300,900", "--virtual-time-budget=5000",
    "--enable-logging=stderr", "--dump-dom",
)  # fmt: skip


class Elements(HTMLParser):
    """found: (tag, attributes) of every element, in order. text: the text by the id, or else the tag, of the element that began last."""

    def __init__(self):
        super().__init__()
        self.found, self.text, self.element = [], {}, ""

    def handle_starttag(self, tag, attributes):
        self.found.append((tag, dict(attributes)))
        self.element = dict(attributes).get("id") or tag

    def handle_data(self, data):
        self.text[self.element] = self.text.get(self.element, "") + data


def elements(text):
    parser = Elements()
    parser.feed(text)
    return parser


def assert_loads_nothing(text):
    """The page's policy forbids to load anything, and nothing in it would."""
    parsed = elements(text)
    (policy,) = [a["content"] for tag, a in parsed.found if tag == "meta" and a.get("http-equiv") == "Content-Security-Policy"]
    assert policy.startswith("default-src 'none';")
    places = [a[name] for _, a in parsed.found for name in ("src", "href", "action", "srcset") if name in a]
    assert not [place for place in places if not place.startswith(("data:", "#"))]
    assert not re.search(r"\b(fetch|XMLHttpRequest|import)\s*\(|@import|url\(", text)


@pytest.fixture
def browse(tmp_path):
    """browse(file, fragment, script) -> the document's elements after the page's script, and then this one, have run."""
    if CHROMIUM is None:
        pytest.skip(reason="no Chromium on this machine (Debian's package chromium); the page is checked by its structure only")

    def run(path, fragment="", script=""):
        copy = tmp_path / "copy.html"
        copy.write_text(path.read_text().replace("</body>", f"<script>{script}</script></body>"))
        done = subprocess.run(
            [CHROMIUM, *OPTIONS, f"--user-data-dir={tmp_path / 'profile'}", f"file://{copy}#{fragment}"],
            capture_output=True, text=True, timeout=120,
        )
        assert done.returncode == 0, done.stderr
        assert "Uncaught" not in done.stderr and "Content Security Policy" not in done.stderr, done.stderr
        return elements(done.stdout)

    return run
