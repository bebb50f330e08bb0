"""The site: `make docs` builds it in build/docs, and every warning is an error."""

import sys
from pathlib import Path

import matplotlib

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))

from _pictures import STYLE  # noqa: E402

import skdl  # noqa: E402

project = "skdl"
author = copyright = "skdl developers"
version = release = skdl.__version__
extensions = [
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "numpydoc",
    "myst_parser",
    "sphinx_design",
    "sphinx_copybutton",
    "sphinx_gallery.gen_gallery",
    "matplotlib.sphinxext.plot_directive",
    "_digits",
    "_mathml",
]
exclude_patterns = ["gallery/**/*.ipynb", "gallery/*.ipynb", "gallery/**/*.py", "gallery/*.py"]
templates_path = ["_templates"]

# ---- text

myst_enable_extensions = ["amsmath", "colon_fence", "deflist", "dollarmath"]
myst_heading_anchors = 4
copybutton_exclude = ".linenos, .gp, .go"

# ---- API

default_role = "literal"  # docstrings name parameters and attributes in single backticks
toc_object_entries_show_parents = "hide"
autosummary_generate = True
autodoc_typehints = "none"  # numpydoc's sections have them
numpydoc_show_class_members = False  # _templates/autosummary/class.rst lists them
autodoc_default_options = {
    "members": True,
    "inherited-members": True,
    # scikit-learn's, whose docstrings lead to its own pages
    "exclude-members": "score, get_metadata_routing, set_fit_request, set_partial_fit_request, set_score_request",
}

# ---- pictures

plot_rcparams = dict(matplotlib.rc_params_from_file(STYLE, use_default_template=False))
plot_apply_rcparams = True
plot_formats = [("png", 150)]
plot_html_show_formats = plot_html_show_source_link = False
sphinx_gallery_conf = {
    "examples_dirs": str(HERE.parent / "examples"),
    "gallery_dirs": "gallery",
    "filename_pattern": r"\.py$",
    "ignore_pattern": r"\b_\w+\.py$",
    "within_subsection_order": "_pictures.in_order",
    "reset_modules": ("matplotlib", "_pictures.use_style"),
    "download_all_examples": False,
    "show_memory": False,
    "show_signature": False,
    "min_reported_time": float("inf"),  # how long they take depends on what else runs
    "write_computation_times": False,
    "capture_repr": (),
}

# ---- HTML

html_title = "skdl"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_logo = html_favicon = "_static/logo.svg"
html_theme = "pydata_sphinx_theme"
html_context = {"default_mode": "auto"}  # as the reader's system is; left open, the theme logs an error
html_theme_options = {
    "logo": {"text": "skdl"},
    "header_links_before_dropdown": 6,
    "navbar_end": ["theme-switcher"],
    "secondary_sidebar_items": ["page-toc"],
    "footer_start": ["copyright"],
    "footer_end": ["sphinx-version"],
    "show_prev_next": True,
    "pygments_light_style": "a11y-high-contrast-light",
    "pygments_dark_style": "a11y-high-contrast-dark",
}
ALONE = ("index", "stack", "reliability", "benchmarks", "architecture", "changelog")  # without pages below them
html_sidebars = {page: [] for page in ALONE}
html_show_sourcelink = False
html_math_renderer = "mathml"
