"""Formulas as MathML, which browsers draw themselves: no script, and nothing is fetched from elsewhere.

docutils translates; Sphinx's own HTML writer lacks this way of its.
"""

import shutil
from pathlib import Path

from docutils import nodes
from docutils.utils.math import MathError
from docutils.utils.math.latex2mathml import tex2mathml
from matplotlib import get_data_path
from sphinx.util import logging

logger = logging.getLogger(__name__)


def translated(node, *, as_block):
    """An empty string, and a warning, where docutils does not know what the formula says."""
    try:
        return tex2mathml(node.astext(), as_block=as_block)
    except MathError as error:
        logger.warning("%s: %s", error, node.astext(), location=node)
        return ""


def inline_math(writer, node):
    writer.body.append(translated(node, as_block=False))
    raise nodes.SkipNode


def displayed_math(writer, node):
    writer.body.append(writer.starttag(node, "div", CLASS="formula"))
    writer.body.append(translated(node, as_block=True) + "</div>\n")
    raise nodes.SkipNode


def add_font(app, exception):
    """For systems without a font for formulas, such as Android: one that matplotlib carries. site.css says when it is used."""
    if exception is None and app.builder.format == "html":
        shutil.copy(Path(get_data_path(), "fonts", "ttf", "DejaVuSerif.ttf"), Path(app.outdir, "_static"))


def setup(app):
    app.connect("build-finished", add_font)
    app.add_html_math_renderer("mathml", (inline_math, None), (displayed_math, None))
    return {"parallel_read_safe": True, "parallel_write_safe": True}
