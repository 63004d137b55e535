"""Publish what a run left on the Hub, and compare every bit with what the Hub then gives back.

Examples:
    ssl-backbones publish runs/mine --repo org/name --data_terms CC0 --dry_run --out preview
    ssl-backbones publish runs/mine --repo org/name --data_terms CC0 --evaluation results/knn results/random
    ssl-backbones publish runs/mine --data_terms CC0 --half --out weights/mine

The weights (safetensors), config.json and the card go to the Hub in one commit, with a tag; they are downloaded into an
empty cache and compared before it says done. HF_ENDPOINT names another Hub. With --enter, a card and the results it is
written from are put into a copy of the repository after that, by the recipe's name, which goes without --repo as well;
with --ship the weights are, too, to be part of the package. With --dry_run, nothing is.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from huggingface_hub import constants
from huggingface_hub.utils import disable_progress_bars, validate_repo_id
from huggingface_hub.utils import logging as hub_logging

import ssl_backbones
from ssl_backbones.checks import brief
from ssl_backbones.cleanup import new_folder, private_folder
from ssl_backbones.credentials import without_credentials
from ssl_backbones.files import telling, write_file
from ssl_backbones.hub.card import in_this_repository
from ssl_backbones.hub.given import Terms, givens, settled, unlicensed
from ssl_backbones.hub.publishing.exchange import Request, connect, publish, verify
from ssl_backbones.hub.publishing.files import card_of, check_empty, write_files
from ssl_backbones.hub.publishing.material import Material, MaterialError, read_material
from ssl_backbones.hub.publishing.refusals import NAME, TAG, PublishError, is_tag
from ssl_backbones.hub.publishing.shipping import check_ships, ship
from ssl_backbones.models.provenance import Provenance
from ssl_backbones.registry.image_sets import known_by
from ssl_backbones.registry.licences import on_the_hub, recorded
from ssl_backbones.registry.tags import WEIGHTS
from ssl_backbones.typed.words import Positional

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Options:
    """The run, where it goes, and what is said of it."""

    run: Positional[Path]
    """The folder of a finished run."""
    repo: str | None = None
    """Repository on the Hub, ORG/NAME; created if it does not exist."""
    tag: str = f"v{ssl_backbones.__version__}"
    """Git tag of the commit; v and the version of this package by default."""
    private: bool = False
    """Make the repository private."""
    gated: Literal["auto", "manual"] | None = None
    """Require people to request access, granted automatically or by hand."""
    with_state: bool = False
    """Publish the newest checkpoint too: heads, queue, target and optimiser."""
    half: bool = False
    """Store the weights as float16, half the size. Evaluate the folder in --out then, and pass that evaluation."""
    evaluation: tuple[Path, ...] = ()
    """Folders with evaluations of these weights, of random weights, and of the initial weights or the teacher."""
    licence: str | None = None
    """Licence of the weights, as the Hub abbreviates it. Default: apache-2.0, or the one that the initial weights or
    the teacher require."""
    licence_link: str | None = None
    """Address of the licence's text, for a licence that the Hub does not list."""
    data_name: str | None = None
    """The name of the images; None for those that the recipe is written for."""
    data_terms: str | None = None
    """Their owners' terms; None for what is known of images that are known by their fingerprint."""
    dataset: str | None = None
    """Id of the images on the Hub, ORG/NAME, for the card's list of datasets."""
    out: Path | None = None
    """New folder for the files; without --repo nothing else is done."""
    enter: bool = False
    """Also write the card and its results into this checkout of the repository."""
    ship: bool = False
    """Also add the weights and their card to the package in this checkout."""
    replace: bool = False
    """Overwrite other files in the repository."""
    dry_run: bool = False
    """Make and list the files, and publish, enter and ship nothing."""
    yes: bool = False
    """Publish without asking for confirmation."""

    def __post_init__(self) -> None:
        if self.licence is not None or self.licence_link is not None:
            on_the_hub(self.licence or "", self.licence_link)

    @property
    def terms(self) -> Terms:
        """The terms of the weights and of the images."""
        return Terms(self.licence, self.licence_link, self.data_name, self.data_terms, self.dataset)


def run(options: Options) -> None:
    """Do what is asked for; MaterialError or PublishError, with nothing written, for what may not be done."""
    hub_logging.set_verbosity_error()  # of its retries; what they end in is told here
    if not sys.stderr.isatty():
        disable_progress_bars()
    check_options(options)
    material = read_material(options.run, options.evaluation, options.with_state, options.half)
    check_terms(material, options.data_terms)
    check_known(givens(material.results), options.licence)
    terms = settled(options.terms, givens(material.results))
    check_licence(terms)
    with private_folder("publish-") as folder:
        name = options.repo.partition("/")[2] if options.repo else material.name
        source = f"hf-hub:{options.repo}" if options.repo else name if options.enter or options.ship else "."
        files = write_files(material, folder, name=name, source=source, terms=terms)
        if options.ship:
            check_ships(material, folder / "model.safetensors")
        if options.out:
            keep(folder, files, options.out)
        introduce(folder, files, options, terms)
        if options.dry_run:
            return
        if options.repo:
            agreed(options)
            release(material, options, folder, files)
        if options.ship:
            print(f"Ships as {ship(material, folder / 'model.safetensors', WEIGHTS).name}")
        if options.enter or options.ship:
            enter(folder, files, material.name, entered_card(material, options, terms, files))


def check_options(options: Options) -> None:
    """Refuse what cannot be done whatever the run holds."""
    if not is_tag(options.tag):
        raise PublishError(f"{brief(repr(options.tag))}: {TAG}")
    if not (options.repo or options.enter or options.ship or options.out):
        raise PublishError(
            "there is nothing to do: name a repository with --repo org/name, or a new folder for the files with --out"
        )
    if options.half and options.with_state:
        raise PublishError(
            "--half rounds the backbone, and others could not go on from --with_state's heads beside it: leave one out"
        )
    if options.half and (options.enter or options.ship):
        raise PublishError(
            "--half is for --repo and --out, as the package holds float32: leave it out, or --enter and --ship"
        )
    if options.repo:
        try:
            validate_repo_id(options.repo)
        except ValueError:
            raise PublishError(f"{options.repo!r}: {NAME}") from None
        if "/" not in options.repo:
            raise PublishError(f"{options.repo!r} names no owner: {NAME}")
    if options.out:
        check_empty(options.out)
    if (options.enter or options.ship) and not (ROOT / "model_cards").is_dir():
        raise PublishError(f"{ROOT} has no model_cards to enter a card into: run this in a copy of the repository")


def entered_card(material: Material, options: Options, terms: Terms, files: Sequence[str]) -> str:
    """The card for this repository: where the records lie in it, and loaded by the recipe's name where it ships."""
    source = f"hf-hub:{options.repo}" if options.repo and not options.ship else material.name
    state = [name for name in files if name.startswith("checkpoints/")] if options.repo else []
    places = in_this_repository(material.name, options.ship, options.repo)
    return card_of(material, name=material.name, source=source, terms=terms, state=state, places=places)


def release(material: Material, options: Options, folder: Path, files: Sequence[str]) -> None:
    """Publish the files and prove it."""
    assert options.repo
    request = Request(options.repo, options.tag, options.private, options.gated, options.replace)
    api = connect()
    commit = publish(api, request, folder, files)
    print(f"Sent as commit {commit}; downloading it to compare ...", flush=True)
    verify(api, request, commit, folder, files, material.backbone)
    print(
        f"Done: {options.repo} holds what was meant, bit for bit, as {options.tag}.\n"
        f'  timm.create_model("hf-hub:{options.repo}@{options.tag}", pretrained=True)\n'
        f'  in the table of tags: hf_hub_id="{options.repo}@{commit}"'
    )


def check_terms(material: Material, said: str | None) -> None:
    """Refuse to publish what was trained on images of which nobody says what their owners allow."""
    if not said and known_by(material.fingerprint) is None:
        raise MaterialError(
            "the images are none that are known by their fingerprint, so their terms are not known: say what their "
            'owners allow, as in --data_terms "CC0", and what they are called with --data_name'
        )


def check_known(given: Mapping[str, Provenance], said: str | None) -> None:
    """Refuse to publish what was made, over however many runs, of a network whose licence nobody states."""
    unknown = unlicensed(given)
    if unknown and recorded(said) is None:
        raise MaterialError(
            f"the licence of {unknown}, of which the weights were made, is not known: find out what it allows, and "
            "state the licence of these weights with --licence"
        )


def check_licence(terms: Terms) -> None:
    """Refuse a licence that the start or the teacher binds to, where the Hub does not list it and no link is known."""
    if terms.on_the_hub.get("license") == "other" and not terms.licence_link:
        raise MaterialError(
            f"the licence {terms.licence}, of what the run was given, is none that the Hub lists: name it with "
            "--licence, and give the address of its text with --licence_link"
        )


def introduce(folder: Path, files: Sequence[str], options: Options, terms: Terms) -> None:
    """Say what is about to be published where."""
    if options.repo:
        seen = f"private{' and ' if options.gated else ''}" if options.private else "" if options.gated else "public"
        gated = f"gated ({options.gated})" if options.gated else ""
        print(f"{options.repo} at {without_credentials(constants.ENDPOINT)}, {seen}{gated}, tag {options.tag}:")
    for name in files:
        print(f"  {(folder / name).stat().st_size:>12,} bytes  {name}")
    print(f"Licence of the weights: {', '.join(f'{field}: {value}' for field, value in terms.on_the_hub.items())}")
    if options.out:
        print(f"Kept in {options.out}")


def keep(folder: Path, files: Sequence[str], out: Path) -> None:
    """Copy the files into a new or an empty folder; UnwritableError, with none of them kept, where that fails."""
    with new_folder(out) as kept:
        for name in files:
            with telling(kept / name):
                (kept / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(folder / name, kept / name)


def agreed(options: Options) -> None:
    """Ask the person, unless --yes was said; PublishError for any answer but yes."""
    if options.yes:
        return
    if not sys.stdin.isatty():
        raise PublishError("nobody is there to be asked whether to publish: say --yes, or look first with --dry_run")
    if input("Publish this? [y/N] ").strip().lower() not in {"y", "yes"}:
        raise PublishError("nothing was published, as you said; --dry_run --out FOLDER keeps the files to look at")


def enter(folder: Path, files: Sequence[str], name: str, card: str) -> None:
    """Put a card and what it is written from into this repository; what is there already is written anew."""
    records = ROOT / "benchmarks" / "results" / name
    shutil.rmtree(records, ignore_errors=True)
    for file in files:
        if file.endswith(".json") and not file.startswith("checkpoints/"):
            (records / file).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(folder / file, records / file)
    write_file(ROOT / "model_cards" / f"{name}.md", card.encode())
    print(f"Entered model_cards/{name}.md and benchmarks/results/{name}/")
