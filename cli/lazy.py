"""Groups that import a file of commands only when one of them is asked for: starting one command costs only its own."""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

import typer
from typer.core import TyperGroup


class LazyGroup(TyperGroup):
    """A group whose subclasses say in :attr:`files` which file holds each command."""

    files: ClassVar[dict[str, str]] = {}
    """Command → file of ``cli/``, in the order of ``--help``; the file's ``register(group)`` adds the command."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self.commands = _Commands(self.commands, self.files)  # type: ignore[assignment]


class _Commands(Mapping[str, Any]):
    """Commands by name: those added at once, then those of files, built when they are asked for."""

    def __init__(self, built: Mapping[str, Any], files: Mapping[str, str]) -> None:
        self._names, self._built, self._files = [*built, *files], dict(built), files

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)

    def __getitem__(self, name: str) -> Any:
        if name not in self._built and name in self._files:
            holder = typer.Typer(rich_markup_mode="rich")
            holder.callback()(lambda: None)  # a group, also with a single command
            importlib.import_module(f"crossmodal.cli.{self._files[name]}").register(holder)
            self._built.update(typer.main.get_group(holder).commands)
        return self._built[name]
