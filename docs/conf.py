"""Sphinx: `make docs` executes every page and ends on the first warning."""

from __future__ import annotations

import os
import sys
from importlib.util import find_spec
from pathlib import Path

import attnflow

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE / "extensions")]
os.environ.setdefault("JAX_PLATFORMS", "cpu")
from docstrings import DATA  # noqa: E402

FAST = bool(os.environ.get("ATTNFLOW_DOCS_FAST"))  # reference and theory alone: nothing is executed
EXECUTED = ["tutorials/**", "auto_gallery/**", "howto/**"]

project = "attnflow"
author = "the attnflow authors"
copyright = author
version = release = attnflow.__version__

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.napoleon",
    "sphinx.ext.mathjax",
    "sphinx_copybutton",
    "docstrings",
    "evidence",
]
if not FAST:
    extensions.append("sphinx_gallery.gen_gallery")
exclude_patterns = ["build", "gallery/*.rst", "gallery/*.py", "extensions", "**/.ipynb_checkpoints"]
exclude_patterns += EXECUTED if FAST else []
templates_path = ["_templates"]
nitpicky = True
# Types of other packages have no page here, and shapes such as "n d" are no names.
nitpick_ignore_regex = [("py:(class|data|exc)", ".*"), ("py:obj", r"(?!attnflow\.).*")]
suppress_warnings = ["config.cache", *(["toc.excluded", "myst-nb.lexer"] if FAST else [])]

myst_enable_extensions = ["amsmath", "attrs_block", "colon_fence", "deflist", "dollarmath"]
myst_heading_anchors = 3
nb_execution_mode = "off" if FAST else "cache"
nb_execution_raise_on_error = True
nb_execution_timeout = 240
nb_execution_show_tb = True
nb_merge_streams = True

evidence_run = not FAST
autosummary_context = {"data": DATA}
autosummary_generate = True
autodoc_default_options = {"no-value": True}
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_class_signature = "mixed"
napoleon_custom_sections = ["Source"]
napoleon_use_ivar = True
napoleon_attr_annotations = False
napoleon_use_rtype = False

sphinx_gallery_conf = {
    "examples_dirs": "gallery",
    "gallery_dirs": "auto_gallery",
    "image_scrapers": ("figures.keep_figures",),
    "abort_on_example_error": True,
    "download_all_examples": False,
    "notebook_extensions": set(),  # MyST-NB would execute them a second time
    "remove_config_comments": True,
    "show_memory": False,
    "show_signature": False,
    "write_computation_times": False,
}

# Formulas need no network: the one file of MathJax that has its fonts in it is copied beside the pages.
MATHJAX = Path(find_spec("sphinx-mathjax-offline").origin).parent / "static/mathjax"  # pyright: ignore
mathjax_path = "tex-svg-full.js"
html_css_files = ["attnflow.css"]
html_static_path = ["_static", str(MATHJAX / mathjax_path)]
html_theme = "furo"
html_title = f"attnflow {release}"
html_copy_source = False
html_show_sourcelink = False
html_show_sphinx = False
