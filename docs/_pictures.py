"""The look of all pictures of the site."""

from pathlib import Path

import matplotlib.pyplot as plt

STYLE = Path(__file__).with_name("skdl.mplstyle")


def use_style(gallery_conf, name):
    """Called by sphinx-gallery before each example."""
    plt.style.use(STYLE)
