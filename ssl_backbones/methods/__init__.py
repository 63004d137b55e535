"""Every method, each a final class behind one protocol: `SomeMethod(backbone, SomeMethodConfig(...))`.

A method is a file of this folder, found by being there; its class and its configuration can be imported from here.
"""

from collections.abc import Iterator
from importlib import import_module
from pkgutil import iter_modules
from typing import TYPE_CHECKING, Any

from ssl_backbones.methods.from_run import RunError as RunError
from ssl_backbones.methods.from_run import method_from_run as method_from_run
from ssl_backbones.methods.method import Method as Method
from ssl_backbones.methods.method import MethodConfig as MethodConfig
from ssl_backbones.models import objective
from ssl_backbones.typed.docstrings import tell_fields

if TYPE_CHECKING:  # a type checker knows more of a class from its own file, as ssl_backbones.methods.byol.BYOL

    def __getattr__(name: str) -> Any: ...


def _defined() -> Iterator[type[Any]]:
    """The methods and configurations that the files here define, and the objectives that one method can be given."""
    modules = [import_module(f"{__name__}.{module.name}") for module in iter_modules(__path__)]
    for module in (*modules, objective):
        for value in vars(module).values():
            if isinstance(value, type) and issubclass(value, Method | MethodConfig | objective.Objective):
                yield value


_CLASSES = {kind.__name__: kind for kind in _defined()}
globals().update(_CLASSES)

METHODS: dict[str, type[MethodConfig]] = {
    kind.name: kind for kind in _CLASSES.values() if issubclass(kind, MethodConfig) and kind is not MethodConfig
}
"""The configuration of every method, by its name in models' names."""

for _kind in METHODS.values():
    tell_fields(_kind)

__all__ = ["METHODS", "RunError", "method_from_run", *_CLASSES]
