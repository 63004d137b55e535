"""Files at addresses: found, listed, and read by range."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from pathlib import Path, PurePosixPath
from tempfile import NamedTemporaryFile
from typing import Any, TypeVar, final
from urllib.parse import unquote, urlsplit

from ssl_backbones.credentials import public
from ssl_backbones.data import asking
from ssl_backbones.data.asking import PLAIN, WEB, asked, function_of, protocol_of, system_of
from ssl_backbones.data.blocks import USUAL_KEEPING, Keeping
from ssl_backbones.data.images import ImageSourceError
from ssl_backbones.files import PRIVATE

T = TypeVar("T")
ADDRESS = re.compile(r"(?!file:)[A-Za-z][A-Za-z0-9+.-]*://.+", re.DOTALL)
PACKED = (".parquet", ".tar")
"""Ends of the names of files of many images."""
PIECE = 4 * 2**20
"""Bytes that are asked for at once, at most."""
AT_ONCE = 8
"""Pieces of one file that are asked for at the same time."""
VERSIONS = ("etag", "content-md5", "md5hash", "blob_id", "generation", "lastmodified", "last-modified", "mtime")
"""Names, in small letters, of what systems tell of a file's content besides its size."""


@final
@dataclass(frozen=True)
class Address:
    """A file at an address, as it was when it was found. Told without what opens it."""

    url: str = field(repr=False)
    size: int
    """Bytes."""
    version: int
    """A number that another content of the same size would not have; 0 where the system tells none."""
    by_range: bool = True
    """False where the server sends nothing but the whole file."""
    keeping: Keeping = USUAL_KEEPING
    """The folder for its blocks."""

    @cached_property
    def path(self) -> PurePosixPath:
        """Its absolute place below the protocol."""
        scheme, _, rest = self.url.partition("://")
        host, _, path = rest.partition("/")
        if scheme.lower() in WEB:
            path = unquote(urlsplit(self.url).path)
        return PurePosixPath("/", host.rpartition("@")[2], path.lstrip("/"))

    @property
    def name(self) -> str:
        return self.path.name

    @property
    def suffix(self) -> str:
        return self.path.suffix

    @property
    def known_as(self) -> str:
        """The name under which something of it is kept, whatever opens it."""
        return public(self.url).partition("?")[0]

    def __str__(self) -> str:
        return public(self.url)


def require_disk(spec: str, what: str) -> None:
    """Refuse an address of what is read from a disk alone; ImageSourceError."""
    distant = next((part for part in spec.split(",") if is_address(part)), None)
    if distant is not None:
        raise ImageSourceError(
            f"{public(distant)!r} is an address, and {what} are read from a disk: copy them to one, and name the copy"
        )


def is_address(source: object) -> bool:
    """True for an address with a protocol."""
    return isinstance(source, str) and ADDRESS.fullmatch(source) is not None


def found_at(url: str) -> Address:
    """The file at an address; ImageSourceError where there is none, or where it may not be asked for."""

    def info(system: Any) -> Callable[[], Any]:
        if protocol_of(url) in WEB:
            return partial(web_info, system, url)
        return partial(function_of(system, "info"), system._strip_protocol(url))

    return asked(url, info, partial(address_of, url))


async def web_info(system: Any, url: str) -> dict[str, Any]:
    """A web server's account of a file, in its answer to a request for the first byte."""
    session = await system.set_session()
    async with session.get(system.encode_url(url), headers={**PLAIN, "Range": "bytes=0-0"}) as answer:
        if answer.status == 416:  # of an empty file
            return {**answer.headers, "size": 0}
        answer.raise_for_status()
        by_range, told = answer.status == 206, answer.headers
        size = told.get("Content-Range", "").rpartition("/")[2] if by_range else told.get("Content-Length", "")
        return {**told, "size": int(size) if size.isdecimal() else None, "by_range": by_range}


def address_of(url: str, about: Mapping[str, Any]) -> Address:
    """The file at an address, out of what its system tells of it."""
    if about.get("type") == "directory":
        raise ImageSourceError(f"{public(url)!r} is a folder: name the files in it")
    if about.get("size") is None:
        raise ImageSourceError(
            f"{public(url)!r} does not tell its size, so no part of it can be asked for: let the server send "
            "Content-Length, or copy the file to a disk"
        )
    names = {name.lower(): str(value) for name, value in about.items() if value}
    told = next((f"{name} {names[name]}" for name in VERSIONS if name in names), "")
    version = int.from_bytes(hashlib.blake2b(told.encode(), digest_size=7).digest(), "little") if told else 0
    return Address(url, int(about["size"]), version, bool(about.get("by_range", True)))


def listed_at(url: str) -> list[Address]:
    """The packed files that a folder at an address holds; empty where there is no such folder, or none in it."""

    def listing(system: Any) -> Callable[[], Any]:
        return partial(function_of(system, "ls"), system._strip_protocol(url), detail=True)

    return packed(url, asked_if_there(url, listing))


def matching(url: str) -> list[Address]:
    """The packed files that a pattern with `*` finds at an address."""

    def found(system: Any) -> Callable[[], Any]:
        return partial(function_of(system, "glob"), system._strip_protocol(url), detail=True)

    return packed(url, list(dict(asked_if_there(url, found) or {}).values()))


def asked_if_there(url: str, call: Callable[[Any], Callable[[], Any]]) -> Any:
    """The answer of a file system, empty where nothing is at the address."""
    try:
        return asked(url, call, lambda answer: answer)
    except ImageSourceError as error:
        missing = isinstance(error.__cause__, FileNotFoundError | NotADirectoryError)
        if missing or (error.__cause__ is not None and asking.status_of(error.__cause__) == 404):
            return []
        raise


def packed(url: str, listing: Sequence[Mapping[str, Any]]) -> list[Address]:
    """The packed files of a listing, in the order of their names; a system whose listings tell no sizes is asked."""
    system = system_of(url)
    told = {str(system.unstrip_protocol(about["name"])): about for about in listing if about.get("type") == "file"}
    names = sorted(name for name in told if is_packed(name))
    if all(told[name].get("size") is not None for name in names):
        return [address_of(name, told[name]) for name in names]
    return found_each(names)


def is_packed(url: str) -> bool:
    """True for the address of a packed file that is not hidden, by its name."""
    name = PurePosixPath(url.partition("?")[0] if protocol_of(url) in WEB else url).name
    return name.endswith(PACKED) and not name.startswith(".")


def found_each(urls: Sequence[str]) -> list[Address]:
    """The files at addresses, several of which are asked for at once."""
    with ThreadPoolExecutor(4 * AT_ONCE) as pool:
        return list(pool.map(found_at, urls))


def fetched(file: Address, start: int, count: int) -> bytes:
    """Bytes of a file from `start` on, as many as are asked for or as there are, in pieces at the same time."""
    end = min(start + count, file.size)
    starts = range(start, end, PIECE)
    if len(starts) <= 1:
        return piece(file, start, end) if start < end else b""
    with ThreadPoolExecutor(min(AT_ONCE, len(starts))) as pool:
        return b"".join(pool.map(lambda at: piece(file, at, min(at + PIECE, end)), starts))


def piece(file: Address, start: int, end: int) -> bytes:
    """The bytes of a file from `start` up to `end`; ImageSourceError where they do not come, whole, in time."""

    def part(system: Any) -> Callable[[], Any]:
        unread = {} if system.async_impl else {"cache_type": "none"}
        return partial(
            function_of(system, "cat_file"), system._strip_protocol(file.url), start=start, end=end, **unread
        )

    def whole(content: bytes) -> bytes:
        if len(content) != end - start:
            raise OSError(f"{len(content):,} bytes came instead of {end - start:,}")
        return content

    try:
        return asked(file.url, part, whole)
    except ImageSourceError:
        require_same(file)
        raise


def require_same(file: Address) -> None:
    """Ask for a file again, and refuse it where it is no longer what was found; ImageSourceError."""
    now = found_at(file.url)
    if (now.size, now.version) != (file.size, file.version):
        raise changed(file)


def changed(file: Address | Path) -> ImageSourceError:
    """The error of a file that is no longer what its index was made of."""
    return ImageSourceError(
        f"{str(file)!r} changed while it was in use: start the command again, on files that stay as they are"
    )


def whole_file(file: Address, size: int, folder: Path) -> Iterator[bytes]:
    """All of a file whose server sends no part of it, in blocks of `size`; it is laid down in the folder meanwhile."""
    with NamedTemporaryFile(prefix=PRIVATE, dir=folder) as copy:

        def fetch(system: Any) -> Callable[[], Any]:
            from aiohttp import ClientTimeout

            patient = ClientTimeout(total=None, sock_read=asking.PATIENCE)
            return partial(system._get_file, file.url, copy.name, timeout=patient)

        def whole(_: object) -> None:
            if (came := Path(copy.name).stat().st_size) != file.size:
                raise OSError(f"{came:,} bytes came instead of {file.size:,}")

        try:
            asked(file.url, fetch, whole, seconds=float("inf"))
        except ImageSourceError:
            require_same(file)
            raise
        with open(copy.name, "rb") as content:
            while block := content.read(size):
                yield block


def kept_in(files: Sequence[Address], keeping: Keeping) -> list[Address]:
    """The same files, with a folder for their blocks."""
    return [replace(file, keeping=keeping) for file in files]
