"""The cards in model_cards/ as the code writes them; `python tests/written_cards.py` puts them in place anew."""

from __future__ import annotations

import json
from pathlib import Path

from ssl_backbones.hub.card import in_this_repository, model_card

ROOT = Path(__file__).parents[1]
CARDS = sorted(path for path in (ROOT / "model_cards").glob("*.md") if path.name != "README.md")
RESULTS = ROOT / "benchmarks" / "results"


def written(name: str) -> str:
    """The card of weights that ship, from the records that `publish --enter` left among the results."""
    recipe, results, config = (
        json.loads((RESULTS / name / f"{what}.json").read_bytes()) for what in ("recipe", "results", "config")
    )
    evaluations = [json.loads(path.read_bytes()) for path in sorted((RESULTS / name / "evaluations").glob("*.json"))]
    places = in_this_repository(name, ships=True, published=None)
    return model_card(recipe, results, config, name=name, source=name, evaluations=evaluations, places=places)


if __name__ == "__main__":
    for card in CARDS:
        card.write_text(written(card.stem), encoding="utf-8")
