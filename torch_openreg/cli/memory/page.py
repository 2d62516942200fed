"""The page of a snapshot: one file with its data, style and script in it. It loads nothing, and its policy forbids it to."""

from __future__ import annotations

import html as markup
import json
from pathlib import Path
from typing import Any

_FOLDER = Path(__file__).parent


def html(facts: dict[str, Any], title: str) -> str:
    """The page for a result of `report.build`."""
    # In a script element only "<" can end or open anything.
    data = json.dumps(facts, separators=(",", ":")).replace("<", "\\u003c")
    parts = {
        "$TITLE": markup.escape(title),
        "$STYLE": (_FOLDER / "page.css").read_text(encoding="utf-8"),
        "$SCRIPT": (_FOLDER / "page.js").read_text(encoding="utf-8"),
        "$DATA": data,
    }
    text = (_FOLDER / "page.html").read_text(encoding="utf-8")
    for name, part in parts.items():  # the data last: nothing in it is replaced
        text = text.replace(name, part)
    return text
