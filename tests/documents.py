"""Pages of the documentation that are written by hand, and their blocks of Python."""

from __future__ import annotations

import re
from pathlib import Path

DOCS = Path(__file__).parent.parent / "docs"
WRITTEN = ("_build", "generated", "models", "tutorials")  # by a build of the documentation, so there or not
PAGES = [page for page in sorted(DOCS.rglob("*.md")) if page.relative_to(DOCS).parts[0] not in WRITTEN]


def blocks_of(page: Path) -> list[str]:
    return re.findall(r"^```python\n(.*?)^```", page.read_text(), re.MULTILINE | re.DOTALL)
