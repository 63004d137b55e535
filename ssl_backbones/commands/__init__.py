"""The commands of `ssl-backbones`, a file each: what they are asked, and what they print."""

from ssl_backbones.commands import bundle, convert, describe, export, importing, listing

COMMANDS = (listing, describe, importing, convert, export, bundle)
"""In the order of the help; each adds itself to a parser with `add`."""

__all__ = ["COMMANDS"]
