"""A picture of one run: a bar for each subject's median, a line to its p99, its ratio beside it.

    python -m bench.plot bench/results/call-….json          # writes call-….svg beside it

SVG by hand: a chart library would be the largest dependency of this project, for one chart.
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

_WIDTH, _LABELS, _ROW, _TOP = 900, 260, 26, 44
_CHART = _WIDTH - _LABELS - 120
_FLOOR, _SUBJECT = "#9aa5b1", "#2f6f9f"


def draw(name: str, rows: Sequence[dict[str, Any]]) -> str:
    """Draw the rows of a report; milliseconds, on a logarithmic scale."""
    low = min(row["median_ms"] for row in rows) / 2
    high = max(row["p99_ms"] for row in rows) * 1.2
    height = _TOP + _ROW * len(rows) + 30

    def place(value: float) -> float:
        return _LABELS + _CHART * math.log(value / low) / math.log(high / low)

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{_WIDTH}" height="{height}" '
        'font-family="sans-serif" font-size="13">',
        '<rect width="100%" height="100%" fill="white"/>',
        f'<text x="12" y="22" font-size="15">{escape(name)}: median, line to p99, in ms (log)</text>',
    ]
    for exponent in range(math.ceil(math.log10(low)), math.floor(math.log10(high)) + 1):
        x = place(10**exponent)
        parts.append(f'<line x1="{x:.1f}" y1="{_TOP - 8}" x2="{x:.1f}" y2="{height - 24}" stroke="#ddd"/>')
        parts.append(f'<text x="{x:.1f}" y="{height - 8}" text-anchor="middle">{10**exponent:g}</text>')
    for number, row in enumerate(rows):
        parts += _bar(row, _TOP + number * _ROW, place, low)
    return "\n".join([*parts, "</svg>"]) + "\n"


def _bar(row: dict[str, Any], y: float, place: Any, low: float) -> list[str]:
    start, end, far = place(low), place(row["median_ms"]), place(row["p99_ms"])
    colour = _FLOOR if row["name"].startswith(row["against"]) else _SUBJECT
    middle = y + _ROW / 2 - 4
    return [
        f'<text x="{_LABELS - 8}" y="{middle + 5}" text-anchor="end">{escape(row["name"])}</text>',
        f'<rect x="{start:.1f}" y="{y}" width="{end - start:.1f}" height="{_ROW - 8}" fill="{colour}"/>',
        f'<line x1="{end:.1f}" y1="{middle}" x2="{far:.1f}" y2="{middle}" stroke="{colour}"/>',
        f'<text x="{far + 6:.1f}" y="{middle + 5}">{row["median_ms"]:.2f} ms, {row["ratio"]:.2f} x</text>',
    ]


def write(report: Path) -> Path:
    """Draw a report's JSON into a file beside it; gives its path."""
    document = json.loads(report.read_text())
    target = report.with_suffix(".svg")
    target.write_text(draw(document["name"], document["rows"]))
    return target


def main() -> int:
    """Draw each report that is named.

    Returns:
        0, or 2 when none is.
    """
    if len(sys.argv) < 2:
        print("usage: python -m bench.plot REPORT.json …", file=sys.stderr)
        return 2
    for name in sys.argv[1:]:
        print(f"written: {write(Path(name))}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
