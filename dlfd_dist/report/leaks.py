"""The page of a leak audit: how many pairs join which parts, and the pairs as pictures."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

from jinja2 import Environment
from PIL import Image, ImageOps

from ..plain import bands

HEIGHT = 96
"""Of a picture, in pixels."""
COUNTS = ("counts", "pairs", "across_parts", "forget_retain")

PAGE = """<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Leak audit: {{ found.title }}</title>
<style>
body { margin: 0 auto; padding: 2rem 1.2rem; max-width: 60rem; color: #1f2937; line-height: 1.5;
  font-family: system-ui, sans-serif; }
h1 { font-size: 1.7rem; margin: 0 0 .4rem; } h2 { font-size: 1.2rem; margin: 2rem 0 .6rem; }
table { border-collapse: collapse; } th, td { text-align: left; padding: .35rem 1.2rem .35rem 0;
  border-bottom: 1px solid #e3e6ea; } td:last-child { text-align: right; }
.pairs { display: grid; grid-template-columns: repeat(auto-fill, minmax(11rem, 1fr)); gap: .8rem; }
figure { margin: 0; border: 1px solid #e3e6ea; border-radius: 8px; padding: .5rem;
  break-inside: avoid; } figure img { height: 96px; max-width: 48%; object-fit: contain; }
figcaption, .muted { color: #5b6472; font-size: .85rem; overflow-wrap: anywhere; }
</style></head><body>
<p class="muted">Leak audit</p>
<h1>{{ found.title }}</h1>
<p>{{ found.images }} images: {{ found.pairs }} pairs show one picture twice, and
<strong>{{ found.across_parts }} of them lie in two parts</strong>; {{ found.forget_retain }} join
an image to forget and one that stays in training.</p>
<table><thead><tr><th scope="col">kind</th><th scope="col">parts</th><th scope="col">pairs</th></tr>
</thead><tbody>
{% for kind, counts in found.counts.items() %}{% for parts, number in counts.items() %}
<tr><td>{{ kind }}</td><td>{{ parts }}</td><td>{{ number }}</td></tr>
{% endfor %}{% endfor %}
</tbody></table>
<p class="muted">Exact: equal pixels. Near: cropped, compressed, mirrored or relit; cosine of
aligned edges of at least {{ found.similarity }}.</p>
<h2>Pairs</h2>
{% if pairs %}<div class="pairs">
{% for pair in pairs %}<figure><img src="{{ pair.one }}" alt=""> <img src="{{ pair.other }}" alt="">
<figcaption>{{ pair.kind }} · {{ pair.parts }} · {{ "%.3f"|format(pair.similarity) }}</figcaption>
</figure>
{% endfor %}</div>
{% else %}<p>{{ "No pair was found." if not more else
"The data set does not allow its images to be shown." }}</p>{% endif %}
{% if more and pairs %}<p class="muted">The first {{ pairs|length }} are
shown; leaks.csv has all.</p>{% endif %}
{% if credit %}<p class="muted">{{ credit }}</p>{% endif %}
</body></html>
"""


class Pair(Protocol):
    """What the page says of a pair."""

    @property
    def kind(self) -> str: ...
    @property
    def part(self) -> str: ...
    @property
    def other_part(self) -> str: ...
    @property
    def similarity(self) -> float: ...


def leaks_page(
    counted: dict[str, Any],
    pairs: Sequence[Pair],
    pictures: Sequence[Sequence[Path]],
    credit: str,
) -> str:
    """Return the page; it names no file and no person.

    Parameters
    ----------
    counted : what `LeakAudit.to_dict` tells, with `title` and `images`; of a request, pairs are
        counted in bands
    pairs, pictures : the pairs to show and the two files of each; empty where none may be shown
    """
    shown = [
        {
            "kind": pair.kind,
            "parts": f"{pair.part} and {pair.other_part}",
            "similarity": pair.similarity,
            "one": _picture(paths[0]),
            "other": _picture(paths[1]),
        }
        for pair, paths in zip(pairs, pictures, strict=True)
    ]
    page = Environment(autoescape=True).from_string(PAGE)
    counts = {name: counted[name] for name in COUNTS}
    parts = [name for of_kind in counted["counts"].values() for name in of_kind]
    # A person of the request could be known by how many of their images are there twice.
    banded = bands(counts) if any("forget" in name for name in parts) else counts
    more = len(shown) < counted["pairs"]
    return page.render(found=counted | banded, pairs=shown, more=more, credit=credit)


def _picture(path: Path) -> str:
    with Image.open(path) as image:
        small = ImageOps.contain(ImageOps.exif_transpose(image).convert("RGB"), (HEIGHT, HEIGHT))
    buffer = io.BytesIO()
    small.save(buffer, "PNG")
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")
