"""The docstrings are plain text with `code` in single backticks; here they become what Sphinx reads.

Runs before napoleon, which turns Args, Returns and Raises into fields.
"""

import re

SECTION = re.compile(r"(Args|Attributes|Example|Raises|Returns|Shapes|Source|Sources|Yields):$")


def as_rst(lines):
    r"""The lines with indented formulas as literal blocks, and with * and | as themselves.

    >>> print("\n".join(as_rst(["y = |x| * k:", "", "    a * b", "", "Args:", "    x: *any* `a*b`."])))
    y = \|x\| \* k:
    <BLANKLINE>
    .. code-block:: text
    <BLANKLINE>
        a * b
    <BLANKLINE>
    Args:
        x: \*any\* `a*b`.
    """
    found, section, literal, doctest = [], False, False, False
    for line in lines:
        text, indented = line.strip(), line.startswith("    ")
        if text and not indented:
            section, literal = bool(SECTION.match(text)), False
        if indented and not section and not literal and found and not found[-1].strip():
            found += [".. code-block:: text", ""]
            literal = True
        doctest = bool(text) and (doctest or text.startswith(">>>"))
        found.append(line if literal or doctest else escaped(line))
    return found


def escaped(line):
    """The line with * and | outside of backticks escaped."""
    parts = re.split(r"(`[^`]*`)", line)
    return "".join(part if part.startswith("`") else re.sub(r"([*|])", r"\\\1", part) for part in parts)


def rewrite(app, what, name, obj, options, lines):
    """Autodoc's hook."""
    lines[:] = as_rst(lines)


def skip_field(app, what, name, obj, skip, options):
    """A NamedTuple's fields are told in its docstring, not again as "Alias for field number 0"."""
    return True if type(obj).__name__ == "_tuplegetter" else skip


def setup(app):
    """Called by Sphinx."""
    app.connect("autodoc-process-docstring", rewrite, priority=400)
    app.connect("autodoc-skip-member", skip_field)
    return {"parallel_read_safe": True}
