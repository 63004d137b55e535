"""Time and memory of mining a part of ImageNet's number of images: python benchmarks/mining.py [--share 0.1]

Random features stand for those of layer3; taking them from images is not counted. The whole may take 15 minutes and
8 GB on two cores: mining is class by class, so that time grows with the number of classes and memory with the features.
"""

from __future__ import annotations

import argparse
import json
import resource
import sys
import time
from pathlib import Path
from typing import Any

import torch
from timing import circumstances, on_threads, write

from ssl_backbones.mining import mine

IMAGES, CLASSES, WIDTH = 1_281_167, 1000, 1024
MINUTES, GIGABYTES = 15.0, 8.0
RESULTS = Path(__file__).parent / "results" / "mining.json"
PACKAGES = ("torch", "numpy", "ssl-backbones")


def peak() -> float:
    """The most memory that this process has held, in GB."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e9


def measure(share: float) -> dict[str, Any]:
    """Time and memory of mining a share of the classes, and the estimate for all of them."""
    images, classes = round(IMAGES * share), round(CLASSES * share)
    features = torch.randn(images, WIDTH, generator=torch.Generator().manual_seed(0))
    labels = torch.arange(images) % classes
    held, start = peak(), time.perf_counter()
    mine(features, labels)
    seconds, most = time.perf_counter() - start, peak()
    gigabytes = features.nbytes / 1e9
    return {
        "photos": images,
        "classes": classes,
        "width": WIDTH,
        "seconds": round(seconds, 1),
        "features_gb": round(gigabytes, 3),
        "before_mining_gb": round(held, 3),
        "peak_gb": round(most, 3),
        "whole_minutes": round(seconds / share / 60, 2),
        "whole_gb": round(most - gigabytes + gigabytes / share, 2),
    }


def main() -> None:
    """Measure, write the results down, and say whether they are within the budget."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--share", type=float, default=0.1, help="of ImageNet's images and classes (0.1)")
    parser.add_argument("--out", type=Path, default=RESULTS, help="the file to write")
    options = parser.parse_args()
    on_threads(2)
    results = circumstances(PACKAGES) | {
        "share": options.share,
        **measure(options.share),
        "budget": {"minutes": MINUTES, "gb": GIGABYTES},
    }
    results["within_budget"] = results["whole_minutes"] <= MINUTES and results["whole_gb"] <= GIGABYTES
    write(results, options.out)
    print(json.dumps(results, indent=2))


if __name__ == "__main__":
    main()
