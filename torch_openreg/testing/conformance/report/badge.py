"""badge.json: the score as an endpoint badge of shields.io (https://shields.io/badges/endpoint-badge)."""

import json

from .score import tally

# The lowest share of passing rows, in percent, for each colour.
COLORS = ((100, "brightgreen"), (99, "green"), (90, "yellowgreen"), (75, "yellow"), (50, "orange"), (0, "red"))


def text(results, device: str) -> str:
    """The JSON text. Without a row that counts the badge says so, as an error."""
    total = tally(results)
    label = f"{device.partition(':')[0]} conformance"
    if not total.counted:
        return json.dumps({"schemaVersion": 1, "label": label, "message": "no rows", "color": "lightgrey", "isError": True}) + "\n"
    color = next(color for lowest, color in COLORS if 100 * total.passed >= lowest * total.counted)
    return json.dumps({"schemaVersion": 1, "label": label, "message": f"{total.percent} of {total.counted:,} rows", "color": color}) + "\n"
