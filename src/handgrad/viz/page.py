"""Pages that need nothing but themselves: templates of the package, filled, with pictures inside."""

import base64
import html
import io
import json
import os
import re
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

from handgrad.viz.canvas import alt_text

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def fill(name: str, **parts: str) -> str:
    """A template of `viz/pages` with each `{{part}}` replaced; the parts are HTML, CSS or JS as they are."""
    return re.sub(r"{{(\w+)}}", lambda found: parts[found[1]], part_of(name))


def part_of(name: str) -> str:
    """A file of `viz/pages`, as it is."""
    return resources.files("handgrad.viz").joinpath("pages", name).read_text(encoding="utf-8")


def write(path: str | os.PathLike[str], text: str) -> Path:
    """Write a page; its folder is made if need be."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def escaped(text: Any) -> str:
    """Text as HTML, quotes too, so that it may stand in an attribute.

    Example:
        >>> escaped("<T-shirt & 'top'>")
        '&lt;T-shirt &amp; &#x27;top&#x27;&gt;'
    """
    return html.escape(str(text), quote=True)


def as_json(data: Any) -> str:
    """JSON that may stand inside a script element, where a `</script>` would end it."""
    return json.dumps(data, separators=(",", ":")).replace("<", "\\u003c")


def figure(ax: "Axes", caption: str | None = None) -> str:
    """A figure of viz as a figure element, its title, the finding, as text above it where all can read it.

    On a narrow screen the picture is scrolled sideways.

    Args:
        ax: what a function of `handgrad.viz` gave; its title is taken off.
        caption: what stands above it; None is the title.
    """
    alt, title = alt_text(ax), ax.get_title()
    ax.set_title("")
    stream = io.BytesIO()
    whole: Any = ax.figure
    whole.figure.savefig(stream, format="svg", bbox_inches="tight", dpi=200, metadata={"Date": None})
    return figure_of(image(stream.getvalue(), "image/svg+xml", alt), title if caption is None else caption)


def figure_of(img: str, caption: str) -> str:
    """An img element with a caption above it."""
    region = f'<div class="wide" tabindex="0" role="region" aria-label="{escaped(caption)}">{img}</div>'
    return f"<figure><figcaption>{escaped(caption)}</figcaption>{region}</figure>"


def image(data: bytes, kind: str, alt: str) -> str:
    """Bytes of a picture as an img element."""
    return f'<img src="data:{kind};base64,{base64.b64encode(data).decode()}" alt="{escaped(alt)}">'


def table(rows: Sequence[Sequence[str]], sides: str, caption: str) -> str:
    """A table of texts, the first row its header, the first column the rows' names.

    Args:
        rows: texts.
        sides: a < or > for each column, where its text is set, as in `insight.report.table`.
        caption: what it shows.
    """
    numbers = [' class="number"' if side == ">" else "" for side in sides]

    def cells(row: Sequence[str], tag: str) -> str:
        first = '<th scope="row">' if tag == "td" else '<th scope="col">'
        others = "".join(f"<{tag}{n}>{escaped(t)}</{tag}>" for n, t in zip(numbers[1:], row[1:], strict=True))
        return f"<tr>{first}{escaped(row[0])}</th>{others}</tr>"

    head, body = cells(rows[0], "th"), "".join(cells(row, "td") for row in rows[1:])
    return (
        f'<div class="wide" tabindex="0" role="region" aria-label="{escaped(caption)}"><table>'
        f"<caption>{escaped(caption)}</caption><thead>{head}</thead><tbody>{body}</tbody></table></div>"
    )
