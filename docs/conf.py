"""How Sphinx builds the documentation, from the root of the repository: `make docs`.

README, examples and notebooks are pages in the place where they lie, so that their relative links lead to the same
files here and on a code host. The notebooks' outputs are those of `notebooks/run.py`; nothing is fetched.
"""

import re
import sys
from pathlib import Path
from urllib.parse import unquote

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / folder) for folder in ("src", "notebooks", "docs")]

import run  # noqa: E402  # notebooks/run.py

import handgrad  # noqa: E402

project = "handgrad"
author = copyright = "The handgrad authors"
version = release = handgrad.__version__

root_doc = "docs/index"
include_patterns = [
    "docs/**",
    "notebooks/*.ipynb",
    "notebooks/README.md",
    "examples/README.md",
    "README.md",
    "CHANGELOG.md",
    "CONTRIBUTING.md",
]
exclude_patterns = ["docs/_*"]
extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
    "sphinx_copybutton",
    "sphinx-mathjax-offline",
    "docstrings",
]

myst_enable_extensions = ["amsmath", "attrs_inline", "colon_fence", "deflist", "dollarmath", "html_image"]
myst_heading_anchors = 4
nb_execution_mode = "cache"
nb_execution_cache_path = str(run.cache_folder())
nb_execution_raise_on_error = True
nb_code_prompt_show = "Show the code of the {type}"

autodoc_member_order = "bysource"
autodoc_preserve_defaults = True
python_maximum_signature_line_length = 90
add_module_names = False
default_role = "code"
napoleon_use_rtype = False  # what Returns says before a colon is text
napoleon_google_docstring, napoleon_numpy_docstring = True, False
napoleon_custom_sections = ["Shapes", "Ties", "Source"]
toc_object_entries_show_parents = "hide"

html_theme = "furo"
html_title = "handgrad"
html_static_path, templates_path = ["_static"], ["_templates"]
html_css_files = ["handgrad.css"]
html_additional_pages = {"index": "redirect.html"}
html_show_sphinx = False
copybutton_prompt_text, copybutton_prompt_is_regexp = r">>> |\.\.\. |\$ ", True
copybutton_exclude = ".linenos, .gp, .go"


def jupyter_anchors(app, docname, source):
    """Links within a notebook name headings as Jupyter and code hosts do, #Saddle-points; MyST wants #saddle-points."""
    if docname.startswith("notebooks/"):
        source[0] = re.sub(r"\]\(#([^)]+)\)", lambda link: f"](#{slug(link[1])})", source[0])


def slug(anchor):
    """An anchor as MyST makes it of the same heading."""
    return re.sub(r"[^\w-]", "", unquote(anchor).lower())


def setup(app):
    """Called by Sphinx."""
    app.connect("source-read", jupyter_anchors)
