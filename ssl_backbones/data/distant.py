"""The files that an address, a pattern of addresses or a list of them means."""

from __future__ import annotations

from collections.abc import Sequence

from ssl_backbones.credentials import public
from ssl_backbones.data.addresses import (
    Address,
    found_each,
    is_address,
    is_packed,
    kept_in,
    listed_at,
    matching,
)
from ssl_backbones.data.asking import WEB, protocol_of
from ssl_backbones.data.blocks import Keeping
from ssl_backbones.data.images import ImageSourceError
from ssl_backbones.data.splits import (
    PARQUET,
    TAR,
    TRAIN,
    Spec,
    all_in,
    say_left,
    split_of,
    to_ask_about,
    to_train_on,
)


def distant_files(spec: Spec, keeping: Keeping, told: bool = False) -> list[Address]:
    """The packed files that addresses mean, of one kind: those to train on where a folder is divided, which is `told`.

    Empty where a source is on this machine. Raises ImageSourceError.
    """
    named = addresses_in(spec)
    if not named:
        return []
    urls = [url for name in named for url in all_in(name)]
    if len(urls) == 1 and not is_packed(urls[0]) and not is_pattern(urls[0]):
        found = in_folder(urls[0])
        taken = to_train_on(of_one_kind(found, urls[0]))
        if told:
            say_left(public(urls[0]), taken, [file for file in found if file not in taken])
        return kept_in(taken, keeping)
    strange = next((url for url in urls if not is_packed(url)), None)
    if strange is not None:
        raise ImageSourceError(
            f"{public(strange)!r} is no .parquet or .tar file by its name: give such files, or one folder of them"
        )
    files = [file for url in urls for file in matching(url)] if any(map(is_pattern, urls)) else found_each(urls)
    return kept_in(of_one_kind(files, urls[0]), keeping)


def distant_kept_out(files: Sequence[Address]) -> list[Address]:
    """The validation files, or else the test files, in the folder of training files at an address."""
    if any(split_of(file) not in TRAIN for file in files):
        return []
    folder = files[0].url.partition("?")[0].rpartition("/")[0]
    try:
        beside = [file for file in listed_at(folder) if file.suffix == files[0].suffix]
    except ImageSourceError:  # files may be read where folders may not be listed
        return []
    return kept_in(to_ask_about(beside), files[0].keeping)


def addresses_in(spec: Spec) -> list[str]:
    """The addresses that a source is given by; ImageSourceError for a list of which some are none."""
    named = [spec] if isinstance(spec, str) else list(spec) if isinstance(spec, Sequence) else []
    addresses = [name for name in named if isinstance(name, str) and is_address(name)]
    if addresses and len(addresses) < len(named):
        other = next(name for name in named if name not in addresses)
        raise ImageSourceError(f"{str(other)!r} is no address, and others of the list are: give all of one kind")
    return addresses


def is_pattern(url: str) -> bool:
    """True for an address with a wildcard."""
    return "*" in url.partition("?")[0]


def in_folder(url: str) -> list[Address]:
    """The packed files of a folder at an address, or of its folder `data`; ImageSourceError where there is none."""
    files = listed_at(url) or listed_at(f"{url.rstrip('/')}/data")
    if not files:
        listing = ", or a listing that its server does not give" if protocol_of(url) in WEB else ""
        raise ImageSourceError(
            f"there is no .tar or .parquet file in {public(url)!r}{listing}: single images are not read from an "
            "address; pack them as tar shards, which are read in large ranges, and name those"
        )
    return files


def of_one_kind(files: Sequence[Address], url: str) -> list[Address]:
    """The parquet files where there are any, else the tar shards; ImageSourceError where there is none."""
    found = [file for file in files if file.suffix == PARQUET] or [file for file in files if file.suffix == TAR]
    if not found:
        raise ImageSourceError(f"no .tar or .parquet file is found at {public(url)!r}: check the address")
    return found
