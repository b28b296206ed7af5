"""Draw all pictures, or those named, into docs/images/ops/, and write their words into the pages that show them."""

import re
import sys
from pathlib import Path

from docs.pictures import DRAWINGS

DOCS = Path(__file__).parents[1]
FOLDER = DOCS / "images" / "ops"


def main(names: list[str]) -> None:
    """Write each picture's SVG, and its words as the alt text of each page's image."""
    alts = {}
    for name in names or DRAWINGS:
        picture = DRAWINGS[name]()
        picture.save(FOLDER / f"{name}.svg")
        alts[name] = picture.alt
    for page in (DOCS / "derivations").glob("*.md"):
        old = page.read_text(encoding="utf-8")
        new = re.sub(
            r"!\[[^\n]*?\]\(\.\./images/ops/(\w+)\.svg\)",
            lambda found: (
                f"![{escaped(alts[found[1]])}](../images/ops/{found[1]}.svg)" if found[1] in alts else found[0]
            ),
            old,
        )
        if new != old:
            page.write_text(new, encoding="utf-8")


def escaped(words: str) -> str:
    """Words as Markdown's alt text: brackets and underscores as they are."""
    return re.sub(r"([\[\]_*])", r"\\\1", words)


if __name__ == "__main__":
    FOLDER.mkdir(parents=True, exist_ok=True)
    main(sys.argv[1:])
