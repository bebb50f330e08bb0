"""The look of all pictures of the site."""

from pathlib import Path

import matplotlib.pyplot as plt

STYLE = Path(__file__).with_name("skdl.mplstyle")


def use_style(gallery_conf, name):
    """Called by sphinx-gallery before each example."""
    plt.style.use(STYLE)


# The gallery's, from the first picture to what is for those who look closer.
ORDER = [
    "mnist", "decision_regions", "templates_form", "segmentation", "words_of_packages", "probe_layers", "calibration",
    "imbalance", "wrong_labels", "drifting_stream", "blocks_from_disk", "search_display", "regularisation_path",
    "early_stopping", "lr_and_batch_size",
]  # fmt: skip


def in_order(name):
    """sphinx-gallery's key to sort the files of examples by."""
    return ORDER.index(Path(name).stem)
