"""Write small SVG pictures as text, with their colours for light and for dark."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

STYLE = """
svg { font: 13px system-ui, sans-serif }
.paper { fill: #ffffff } .ink { fill: #1f2937 } .soft { fill: #4b5563 }
.line { stroke: #1f2937; fill: none } .rule { stroke: #9ca3af; fill: none }
.forget { stroke: #b45309; fill: none } .other { stroke: #0067ad; fill: none }
.forget-area { fill: #f59e0b } .other-area { fill: #3b82c4 }
@media (prefers-color-scheme: dark) {
  .paper { fill: #1b1e26 } .ink { fill: #e5e7eb } .soft { fill: #b6bcc6 }
  .line { stroke: #e5e7eb } .rule { stroke: #6b7280 }
  .forget { stroke: #fbbf24 } .other { stroke: #6cb6f5 }
  .forget-area { fill: #b7791f } .other-area { fill: #2f6fa8 }
}
"""


class Picture:
    """A picture that is read out by its title and its description."""

    def __init__(self, width: int, height: int, title: str, description: str):
        self.size = (width, height)
        self.parts = [
            f"<title>{escape(title)}</title>",
            f"<desc>{escape(description)}</desc>",
            f"<style>{STYLE}</style>",
            f'<rect class="paper" width="{width}" height="{height}"/>',
        ]

    def text(self, x: float, y: float, words: str, *, kind: str = "ink", anchor: str = "start"):
        place = f'x="{x:g}" y="{y:g}" text-anchor="{anchor}"'
        self.parts.append(f'<text class="{kind}" {place}>{escape(words)}</text>')

    def path(self, points: Sequence[tuple[float, float]], kind: str, *, width: float = 2) -> None:
        steps = "L".join(f"{x:.1f} {y:.1f}" for x, y in points)
        self.parts.append(f'<path class="{kind}" stroke-width="{width:g}" d="M{steps}"/>')

    def box(self, x: float, y: float, width: float, height: float, kind: str) -> None:
        self.parts.append(
            f'<rect class="{kind}" x="{x:.1f}" y="{y:.1f}" '
            f'width="{width:.1f}" height="{height:.1f}" rx="2"/>'
        )

    def __str__(self) -> str:
        width, height = self.size
        head = (
            f'<svg xmlns="http://www.w3.org/2000/svg" role="img" width="{width}" height="{height}" '
            f'viewBox="0 0 {width} {height}">'
        )
        return "\n".join([head, *self.parts, "</svg>", ""])
