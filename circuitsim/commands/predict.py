"""What a trained network sees in images: ``python -m circuitsim.classify predict``."""

from __future__ import annotations

import argparse
from pathlib import Path

from circuitsim.commands import waiting
from circuitsim.commands.evaluate import loaded
from circuitsim.commands.images import add_jobs

HELP = "classify image files"
DESCRIPTION = (
    "Print for each image file the classes that a trained network finds likeliest, with their "
    "probabilities. Files may be PNG, JPEG, BMP, GIF, PPM, TIFF or WEBP, of the size that the "
    "network was trained on unless --resize is given."
)


def add_options(p: argparse.ArgumentParser) -> None:
    """Add the command's options."""
    p.add_argument("run", type=Path, metavar="RUN", help="directory that train has written")
    p.add_argument("image", type=Path, nargs="+", metavar="IMAGE", help="image files")
    p.add_argument(
        "--resize",
        action="store_true",
        help="cut out the middle of images of another size, and resize it",
    )
    p.add_argument("--top", type=int, default=3, metavar="N", help="classes to print for each")
    add_jobs(p)


def body(options: argparse.Namespace) -> int:
    """Classify images; return the exit code."""
    import numpy as np

    from circuitsim.checks.validation import integer
    from circuitsim.vision import pictures

    top = integer("top", options.top, minimum=1)
    with waiting.told("looking at images"):
        classifier = loaded(options.run, options.jobs)
        shape = classifier.run_.architecture.input_shape
        images = np.stack([pictures.read(path, shape, options.resize) for path in options.image])
        probabilities = classifier.predict_proba(images)
    for path, found in zip(options.image, probabilities, strict=True):
        likeliest = np.argsort(-found, kind="stable")[:top]
        shown = [f"{classifier.class_names[n]} {100 * found[n]:.1f} %" for n in likeliest]
        print(f"{path}: {', '.join(shown)}")
    return 0
