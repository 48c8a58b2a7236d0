"""How Sphinx builds the documentation: `make docs`, without network and without LaTeX."""

import sys
from pathlib import Path

DOCS = Path(__file__).resolve().parent
sys.path.insert(0, str(DOCS))

from acon_docs import pages  # noqa: E402 - lies next to this file

import acon_analysis  # noqa: E402

project = "acon-analysis"
author = "the acon-analysis contributors"
copyright = author  # noqa: A001 - Sphinx names it so
release = version = acon_analysis.__version__

extensions = [
    "sphinx.ext.autodoc",
    "numpydoc",
    "myst_parser",
    "acon_docs.mathml",
    "acon_docs.docstrings",
]
exclude_patterns = ["_build", "_static", "acon_docs"]

# Everything that the package itself knows (names, columns, commands, pictures, results) is written
# into pages at build time, so that it cannot go stale.
pages.write_all(DOCS)

myst_enable_extensions = ["deflist", "dollarmath", "colon_fence"]
myst_heading_anchors = 4
myst_dmath_double_inline = True
html_math_renderer = "mathml"

# Docstrings: numpydoc sections, types in words, single backticks are names.
default_role = "py:obj"
autodoc_typehints = "none"
autodoc_member_order = "bysource"
numpydoc_show_class_members = False
numpydoc_class_members_toctree = False

# Every name in backticks must exist (acon_docs.docstrings). Types in words ("array_like") are no
# references, because numpydoc is not asked to make them any: so there is nothing to ignore.
nitpicky = True

html_theme = "furo"
html_title = "acon-analysis"
html_static_path = ["_static"]
html_css_files = ["acon.css"]
html_copy_source = False
html_show_sourcelink = False
html_show_sphinx = False
