"""What mkdocs runs while it builds: it adds pages from the code and from other folders."""

from __future__ import annotations

import itertools
import sys
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parents[2]
SEARCH = '<div class="md-search" data-md-component="search" role="dialog"'
sys.path.insert(0, str(ROOT))

from docs.generate.command_line import command_line_page  # noqa: E402
from docs.generate.files import files_page  # noqa: E402
from docs.generate.links import PAGES, relink  # noqa: E402
from docs.generate.methods import method_pages  # noqa: E402
from docs.generate.settings import settings_page  # noqa: E402
from docs.generate.tutorials import tutorial_pages  # noqa: E402


def on_config(config: Any) -> Any:
    """Put a page for each method below the table of all."""
    pages = [page for page in method_pages() if page.endswith(".md")]
    for section in config.nav:
        if "Methods" in section:
            section["Methods"] += sorted(pages)
    return config


def on_files(files: Files, config: Any) -> Files:
    """Add the pages that have no file in docs/."""
    for page, text in generated_pages().items():
        files.append(File.generated(config, page, content=text))
    return files


def generated_pages() -> dict[str, str]:
    """Return path and text of every page that is made from other files."""
    pages = {
        page: relink((ROOT / source).read_text(encoding="utf-8"), source, page)
        for source, page in PAGES.items()
    }
    code = (ROOT / "examples/plugin/src/dlfd_random_label.py").read_text(encoding="utf-8")
    pages["howto/write-a-method.md"] += f"\n## The file\n\n```python\n{code}```\n"
    pages["reference/command-line.md"] = command_line_page()
    pages["reference/settings.md"] = settings_page()
    pages["reference/files.md"] = files_page()
    return pages | method_pages() | tutorial_pages()


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Lead links out of docs/ to the pages that show those files."""
    if page.file.generated_by:
        return markdown
    return relink(markdown, f"docs/{page.file.src_uri}", page.file.src_uri)


def on_page_content(html: str, **_: Any) -> str:
    """Let the keyboard scroll each table that is wider than the screen."""
    before, *tables = html.split("<table>")
    parts = [before]
    for number, table in zip(itertools.count(1), tables):
        scroll = f'<div class="scroll" role="region" aria-label="Table {number}" tabindex="0">'
        parts += [scroll, "<table>", table.replace("</table>", "</table></div>", 1)]
    return "".join(parts)


def on_post_page(output: str, **_: Any) -> str:
    """Name the search for a screen reader; the theme leaves its dialog without a name."""
    return output.replace(SEARCH, f'{SEARCH} aria-label="Search"')


def on_post_template(output_content: str, **_: Any) -> str:
    """Do the same for 404.html, which is no page of mkdocs."""
    return on_post_page(output_content)
