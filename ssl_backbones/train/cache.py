"""Makes the cache of `--cache`: the images of a source, decoded once, where every later epoch and run maps them.

A cache grows in `.tmp-NAME/`, block by block, and a block counts once `blocks.jsonl` has its line: after a kill the
making goes on behind the last whole one. The finished folder is renamed to NAME, and never changed or made anew without
being told to: a source that is no longer what the cache was made of is refused.
"""

from __future__ import annotations

import hashlib
import re
import shutil
import time
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch

from ssl_backbones.credentials import without_credentials
from ssl_backbones.data import Images, ImageSourceError, ResidentImages, UnreadableImageError
from ssl_backbones.data.cached import INDEX, CachedImages, read_index, verify
from ssl_backbones.data.digests import spread
from ssl_backbones.data.unreadable import Unreadable
from ssl_backbones.distributed import doing, first_decides, first_here, gather_objects, in_every_process, say
from ssl_backbones.locks import Lock, LockedError
from ssl_backbones.recipes.recipe import Recipe
from ssl_backbones.refusal import Refusal, reason
from ssl_backbones.runs.log import Bar
from ssl_backbones.runs.manifest import wait_for
from ssl_backbones.runs.progress import counted
from ssl_backbones.shared_disk import seen
from ssl_backbones.train.cache_file import BLOCK, UnfinishedCache, can_be_kept, content_of
from ssl_backbones.train.settle import still_free

SHARE = 0.25
"""Part of a GPU's free memory that images may take from the network."""
SAMPLE = 64
"""Images whose size stands for all, and of which a few are held against the source whenever a cache is used."""
COMPARED = 16
WAIT = 0.5
"""Seconds between two looks at a cache that another process makes."""


class ImageCacheError(Refusal, RuntimeError):
    """A cache of images that cannot be made, or must not be used; the message is one sentence, with the way out."""


@dataclass(frozen=True)
class Caching:
    """The folder of caches, and the images that are kept there."""

    folder: Path
    limit: float = 8.0
    """GB of pixels up to which a source is kept."""
    side: int = 0
    """Short side that images are scaled down to and encoded anew with; 0 for their pixels as they are."""
    unreadable_share: float = 0.01
    """More unreadable images than this share are refused."""

    @staticmethod
    def of(recipe: Recipe) -> Caching | None:
        """The caching that a recipe asks for; None if it asks for none."""
        if not recipe.cache:
            return None
        return Caching(Path(recipe.cache), recipe.cache_limit, recipe.reencode, recipe.unreadable_share)

    def takes(self, expected: int) -> bool:
        """True if so many bytes may be kept: any of encoded images, and of pixels up to the limit."""
        return bool(self.side) or expected <= self.limit * 1e9

    def place(self, source: str, part: str = "") -> Path:
        """The folder of a source's cache, named after it; `part` tells apart what one name opens."""
        source = without_credentials(source)
        there = str(Path(source).expanduser().absolute()) if Path(source).expanduser().exists() else source
        name = re.sub(r"[^A-Za-z0-9]+", "_", "_".join(Path(source).parts[-2:])).strip("_")[-60:] or "photos"
        kind = f"-jpeg{self.side}" if self.side else ""
        return self.folder / f"{name}-{hashlib.sha256(there.encode()).hexdigest()[:8]}{part}{kind}"


def cached(images: Images, source: str, how: Caching, part: str = "") -> Images:
    """The same images out of a cache, made if there is none yet; the images themselves where they are too large.

    All processes call it: the first of each machine makes, whose disk it may be, and the others wait; where machines
    share the folder, one makes for all. TooManyUnreadableError as a run would raise it.
    """
    place = how.place(source, part)
    expected = 0 if is_made(source, how, part) else first_decides(lambda: expected_bytes(images, how))
    if not how.takes(expected):
        say(
            f"{source} is not cached: its {len(images)} images take about {expected / 1e9:.1f} GB as pixels, and "
            f"--cache_limit is {how.limit:g}"
        )
        return images
    making = making_of(images, source, place, how, expected) if first_here() else iter(())
    while any(in_every_process(lambda: next(making, False))):
        pass
    in_every_process(lambda: check(images, source, place) if first_here() else None)
    wait_for(place / INDEX)
    found = CachedImages(place)
    found.keys, found.labels, found.classes = images.keys, images.labels, images.classes
    if images.place is not None and not found.encoded and found.content_digest is not None:
        found.place, found.part_mark = images.place, images.part_mark  # for what is kept of them
    found.whole_fingerprint = images.whole_fingerprint
    if found.told_by_sizes:
        found.fingerprint, found.fingerprint_by_sizes = images.fingerprint, images.fingerprint_by_sizes
    return found


def is_made(source: str, how: Caching, part: str = "") -> bool:
    """True if every process sees the whole cache of a source. All processes call it."""
    return all(in_every_process(lambda: seen(how.place(source, part))))


def made_at_once(images: Images, source: str, how: Caching) -> float:
    """Make the cache of a few images, where there is none; the seconds that it takes for each."""
    making = UnfinishedCache(how.place(source), images, source, how.side)
    began = time.perf_counter()
    making.add(range(len(images)))
    seconds = (time.perf_counter() - began) / len(images)
    making.finish()
    return seconds


def expected_bytes(images: Images, how: Caching) -> int:
    """About how many bytes a cache takes, from some of the images."""
    sizes = []
    for at in spread(len(images), SAMPLE):
        try:
            sizes.append(len(content_of(images[at], how.side, images.keys[at])))
        except UnreadableImageError:
            continue
    return round(sum(sizes) / len(sizes) * len(images)) if sizes else 0


def making_of(images: Images, source: str, place: Path, how: Caching, expected: int) -> Iterator[bool]:
    """Makes a cache where there is none, and halts after every block: others that wait hear that it goes on."""
    if place.exists():
        return  # a whole one is only read: its folder may be another's, or cannot be written to
    lock = yield from own_turn(place, how)
    try:
        if not seen(place):
            yield from grow(images, source, place, how, expected)
    finally:
        lock.release()


def own_turn(place: Path, how: Caching) -> Generator[bool, None, Lock]:
    """Halts until no other process makes this cache, and returns the claim to make it."""
    file = place.with_name(f".lock-{place.name}")
    told = False
    while True:
        try:
            place.parent.mkdir(parents=True, exist_ok=True)
            return Lock(file)
        except LockedError as error:
            if not told:
                say(f"another process makes the cache in {place}: waiting for {error} (if it is gone, delete {file})")
            told = True
        except OSError as error:
            raise ImageCacheError(
                f"images cannot be kept in {how.folder} ({reason(error)}): name a folder that can be written to with "
                "--cache, or leave it out"
            ) from error
        time.sleep(WAIT)
        yield True


def grow(images: Images, source: str, place: Path, how: Caching, expected: int) -> Iterator[bool]:
    """All blocks that are missing, one at a time, and the name that makes the folder a cache."""
    account = Unreadable(len(images), how.unreadable_share)
    try:
        unfinished = UnfinishedCache(place, images, source, how.side)
        for why in unfinished.dropped:
            say(f"starting the cache in {place} over: {why}")
        require_room(place, expected * (1 - unfinished.done / len(images)))
        if unfinished.done:
            say(f"resuming the cache in {place} after {unfinished.done} of {len(images)} images")
        bar = Bar(total=len(images), initial=unfinished.done, unit=" images", desc="cache", disable=None)
        with bar, doing(lambda: f"Keeping pixels in {place}: {unfinished.done} of {len(images)} images"):
            account.add(unfinished.unreadable_keys())
            for start in range(unfinished.done, len(images), BLOCK):
                indices = range(start, min(start + BLOCK, len(images)))
                unfinished.add(indices)
                account.add(unfinished.unreadable_keys())
                bar.update(len(indices))
                yield True
        unfinished.finish()
    except OSError as error:
        raise ImageCacheError(
            f"the cache in {place} cannot be written ({reason(error)}): make room or mend the folder and "
            "start the same command again, which goes on from there, or leave out --cache"
        ) from error
    say(f"{len(images)} images of {source} are kept in {place}")


def require_room(place: Path, needed: float) -> None:
    """Refuse a disk that is too full, before any work."""
    free = shutil.disk_usage(place.parent).free
    if needed > free:
        raise ImageCacheError(
            f"the cache in {place} needs about {needed / 1e6:.1f} MB more and {free / 1e6:.1f} MB are free: make room, "
            "name a folder on another disk with --cache, or leave it out"
        )


def check(images: Images, source: str, place: Path) -> None:
    """Refuse a cache that was harmed, or is not of these images any more, or lacks one that can be read now.

    A few of its images are decoded again and compared: the same files may be decoded to other pixels. Of a cache of
    0.1.0.dev0, which knew images by their sizes, all are.
    """
    index = read_index(place)
    way_out = f"delete {place}, and the same command makes it anew, or name another folder with --cache"
    if not images.known_as(index["of"]["fingerprint"]):
        raise ImageCacheError(
            f"{source} is not what the cache in {place} was made of (fingerprint {images.fingerprint[:12]} instead of "
            f"{index['of']['fingerprint'][:12]}, {len(images)} images instead of {index['of']['photos']}): {way_out}"
        )
    if index["of"].get("content_digest", images.content_digest) != images.content_digest:
        raise ImageCacheError(
            f"{source} is not what the cache in {place} was made of (some of its images differ in bytes that their "
            f"fingerprint does not cover): {way_out}"
        )
    verify(place)
    found = CachedImages(place)
    side = index["content"].get("short_side", 0)
    readable = next((at for at in found.unreadable if can_be_kept(images, at, side)), None)
    if readable is not None:
        raise ImageCacheError(
            f"{images.keys[readable]!r} can be read now, and could not be when the cache in {place} was made: {way_out}"
        )
    if found.encoded and not found.told_by_sizes:
        return
    asked = counted(range(len(images)), len(images), "Comparing the images with their cache")
    for at in asked if found.told_by_sizes else spread(len(images), COMPARED):
        if not alike(images, found, at):
            raise ImageCacheError(
                f"{images.keys[at]!r} is decoded to other pixels than those in the cache in {place} (the image was "
                f"changed, or Pillow, which was {index['made_with'].get('pillow')}): {way_out}"
            )


def alike(images: Images, found: CachedImages, at: int) -> bool:
    """True if a cache holds what an image is decoded to now, scaled down and encoded as it was then."""
    if not found.encoded or at in found.unreadable:
        return pixels(images, at) == pixels(found, at)
    try:
        side = found.index["content"]["short_side"]
        return content_of(images[at], side, images.keys[at]) == found.content_of(at).tobytes()
    except UnreadableImageError:
        return False


def pixels(images: Images, at: int) -> tuple[tuple[int, int], bytes] | None:
    """An image's size and bytes; None where it cannot be read."""
    try:
        image = images[at]
    except UnreadableImageError:
        return None
    return image.size, image.tobytes()


def resident(images: Images, recipe: Recipe, device: torch.device) -> Images:
    """The same images, brought to the device if the recipe asks for it; ImageSourceError where they do not fit."""
    if not recipe.resident:
        return images
    if not isinstance(images, CachedImages):
        raise ImageSourceError(
            f"{recipe.data} was too large for the cache (--cache_limit {recipe.cache_limit:g} GB), and only a cache "
            "becomes resident: raise the limit, or leave out --resident"
        )
    needed, allowed = int(images.ends[-1]), SHARE * min(gather_objects(free_memory(device)))
    if needed > allowed:
        raise ImageSourceError(
            f"{recipe.data} takes {needed / 1e9:.2f} GB as pixels, and images may take {allowed / 1e9:.2f} GB of this "
            f"{device.type} device's memory: leave out --resident, and they come from the cache batch by batch"
        )
    return ResidentImages(images, device)


def free_memory(device: torch.device) -> float:
    """Bytes of a GPU's memory that are free; infinite for a CPU, whose share the cache's limit sets."""
    return still_free(device) if device.type == "cuda" else float("inf")
