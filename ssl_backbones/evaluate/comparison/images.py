"""The images of a comparison, which have to be the same whenever it goes on: its numbers stand in one table."""

from __future__ import annotations

from ssl_backbones.data import DecodePolicy, open_images, validation_of
from ssl_backbones.evaluate.comparison.comparison import Comparison, ComparisonError
from ssl_backbones.files import make_folder, read_object, write_json
from ssl_backbones.runs.results import about

NOTE = "images.json"


def check_images(comparison: Comparison) -> None:
    """Note the images that a comparison begins with; ComparisonError where it would go on with others."""
    data, validation = comparison.data, comparison.validation
    policy = DecodePolicy(channels=comparison.channels)
    images = open_images(data, policy)
    asked = open_images(validation, policy, images.classes) if validation else validation_of(data, images, policy)
    sources = {"data": data, "validation": validation or f"the split kept beside {data}"}
    found = {"data": about(images, data), "validation": None if asked is None else about(asked, sources["validation"])}
    place, which = comparison.out / NOTE, comparison.digest()
    way_out = "delete it, or name another folder with --out"
    noted = read_object(place, way_out, ComparisonError) if place.exists() else {}
    before = noted.setdefault(which, found)
    for part, source in sources.items():
        if not isinstance(before, dict) or before.get(part) != found[part]:
            raise ComparisonError(
                f"the images of {source} are not those that the comparison in {comparison.out} began with, which "
                f"{place} names: give it the same {part}, or name another folder with --out"
            )
    make_folder(place.parent)
    write_json(place, noted)
