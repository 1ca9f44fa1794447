"""Recipes: a YAML file that says what is trained and how, and what ``crossmodal train`` does with it.

::

    about: One line on what this trains.
    extends: full.yaml          # optional: start from that file of the same folder, and change what follows
    task: voice-encoder         # a name of crossmodal.training.tasks.TABLE, or package.module:Class
    generate: module:function   # optional: make the data, function(folder, seed), where no --data is given
    config: {...}               # the task's own Config
    trainer: {...}              # crossmodal.training.config.TrainerConfig

``${data}`` in any text stands for the data folder (``--data``, else what ``generate`` made, else the environment
variable ``CROSSMODAL_DATA``); a task whose config has a field ``data`` gets it there too.
"""

from __future__ import annotations

import dataclasses
import difflib
import importlib
import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

from crossmodal.config import from_dict, load_yaml, merge, to_dict
from crossmodal.errors import ConfigError, DataError

if TYPE_CHECKING:
    from torch import nn

    from crossmodal.training.config import TrainerConfig
    from crossmodal.training.core import Result
    from crossmodal.training.task import Task

_PLACE = "${data}"


@dataclass
class RecipeFile:
    """The top level of a recipe file."""

    task: str
    about: str = ""
    generate: str = ""
    config: dict[str, Any] = field(default_factory=dict)
    trainer: dict[str, Any] = field(default_factory=dict)


@dataclass
class Recipe:
    """A recipe whose every key and value has been checked."""

    path: Path
    name: str
    """``folder/file`` of a packaged recipe, else the file's name."""
    about: str
    task_class: type[Task]
    config: Any
    trainer: TrainerConfig

    def task(self) -> Task:
        """The task with freshly initialised networks, the same ones for the same seed."""
        from crossmodal.training.loading import mix, seed_everything

        seed_everything(mix(self.trainer.seed, "initial weights"))
        return self.task_class(self.config)


def find_recipe(name: str) -> Path:
    """The file of a recipe: a path, or ``folder[/file]`` of the packaged ones (default file: ``full``).

    Raises:
        ConfigError: there is none; the nearest one is suggested.
    """
    path = Path(name)
    if path.suffix in (".yaml", ".yml") and path.is_file():
        return path
    shelf = Path(str(files("crossmodal.recipes")))
    folder, _, file = name.partition("/")
    packaged = shelf / folder / f"{(file or 'full').removesuffix('.yaml')}.yaml"
    if packaged.is_file() and packaged.resolve().is_relative_to(shelf.resolve()):
        return packaged
    known = packaged_recipes()
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.4)
    hint = f"did you mean '{near[0]}'?" if near else f"give a YAML file or one of: {', '.join(known) or 'none'}"
    raise ConfigError("there is no such recipe", source=name, remedy=hint)


def packaged_recipes() -> list[str]:
    """``folder/file`` of every recipe that comes with the package."""
    shelf = Path(str(files("crossmodal.recipes")))
    return sorted(f"{path.parent.name}/{path.stem}" for path in shelf.glob("*/*.yaml"))


def read_recipe(path: Path) -> dict[str, Any]:
    """The recipe's mapping, with what it ``extends`` underneath.

    Raises:
        ConfigError: a file cannot be read, or the files extend each other in a circle.
    """
    content, seen = load_yaml(path), [path.resolve()]
    while "extends" in content:
        parent = (seen[-1].parent / str(content.pop("extends"))).resolve()
        if parent in seen:
            raise ConfigError("extends itself", source=path)
        seen.append(parent)
        content = merge(load_yaml(parent), content)
    return content


def parse_settings(settings: Iterable[str]) -> dict[str, Any]:
    """``["trainer.steps=100", "config.model.width=64"]`` → nested mapping; values are read as YAML.

    Raises:
        ConfigError: a setting has no ``=``, or its value is not YAML.
    """
    import yaml

    result: dict[str, Any] = {}
    for setting in settings:
        key, equals, text = setting.partition("=")
        if not equals or not key.strip():
            raise ConfigError(f"'{setting}' is not a setting", source="--set", remedy="write it as trainer.steps=100")
        try:
            value: Any = yaml.safe_load(text)
        except yaml.YAMLError as error:
            raise ConfigError(f"the value of '{setting}' is not valid YAML", source="--set") from error
        for part in reversed(key.strip().split(".")):
            value = {part: value}
        result = merge(result, value)
    return result


def load_recipe(
    name: str, settings: Mapping[str, Any] | None = None, *, data: Path | None = None, out: Path | None = None
) -> Recipe:
    """Read a recipe, overlay ``settings`` (nested as the file is), and check every key and value.

    Args:
        name: see :func:`find_recipe`.
        settings: what differs from the file.
        data: the data folder.
        out: where a recipe that generates its data puts it (``out/data``).

    Raises:
        ConfigError: a key is unknown or a value is out of range.
        DataError: the recipe needs a data folder and none is given.
    """
    from crossmodal.training.config import TrainerConfig

    path = find_recipe(name)
    content = merge(read_recipe(path), settings or {})
    head = from_dict(RecipeFile, content, source=path)
    cls = _task_class(head.task)
    trainer = from_dict(TrainerConfig, head.trainer, source=f"{path}: trainer")
    values = dict(head.config)
    wants_data = any(f.name == "data" for f in dataclasses.fields(cls.Config))
    folder, generate = _data_folder(path, head, data, out, needed=_mentions(values))
    if folder is not None:
        values = _fill(values, folder)
        if wants_data and (data is not None or "data" not in values):
            values["data"] = str(folder)
    config: Any = from_dict(cls.Config, values, source=f"{path}: config")
    if generate is not None and folder is not None and not (folder / ".complete").is_file():
        folder.mkdir(parents=True, exist_ok=True)
        generate(folder, trainer.seed)
        (folder / ".complete").touch()
    packaged = path.parent.parent == Path(str(files("crossmodal.recipes")))
    name = f"{path.parent.name}/{path.stem}" if packaged else path.stem
    return Recipe(path=path, name=name, about=head.about, task_class=cls, config=config, trainer=trainer)


def train(recipe: Recipe, out: Path, *, resume: bool = True) -> tuple[Result, Path]:
    """Train and export; returns how it ended and the folder of the exported bundle part (``out/export``).

    Raises what :func:`crossmodal.training.core.fit` raises.
    """
    from crossmodal.training.checkpoints import find, load_weights
    from crossmodal.training.core import fit, make_fabric

    fabric = make_fabric(recipe.trainer)
    fabric.launch()
    task = recipe.task()
    result = fit(task, recipe.trainer, out, resume=resume, fabric=fabric)
    if fabric.global_rank == 0:
        if recipe.trainer.strategy == "fsdp":  # the trained networks are in pieces
            task = recipe.task()
            load_weights(task.modules, find(result.checkpoint))
        export(recipe, task, result, out / "export")
    fabric.barrier()
    return result, out / "export"


def export(recipe: Recipe, task: Task, result: Result, folder: Path) -> Path:
    """Write the trained networks as a bundle that holds these alone, with a card that says where they come from."""
    from crossmodal.bundle import BundleWriter
    from crossmodal.training.checkpoints import find

    notes: list[str] = []
    with BundleWriter(folder, name=f"{recipe.name.replace('/', '-')}-{result.step}") as writer:

        def add(name: str, kind: str, module: nn.Module, **card: Any) -> None:
            writer.add(role_of(name, kind), kind, module)
            notes.append(f"- **{role_of(name, kind)}** ({kind})")
            notes.extend(f"  - {key.replace('_', ' ')}: {value}" for key, value in card.items())

        task.export(folder, add)
        writer.card(_card(recipe, result, notes))
        if record := find(result.checkpoint).state.get("protocol"):
            writer.protocol(record)
    return folder


def role_of(name: str, kind: str) -> str:
    """The bundle role of a network: its own name if that is one, else the role its kind plays."""
    from crossmodal.bundle import ROLES

    if name in ROLES:
        return name
    if kind in ("face-dlib", "face-facenet", "face-vggface"):
        return "face-features"
    fitting = [role for role in ROLES if kind.startswith(role)]
    return fitting[0] if fitting else name


def _card(recipe: Recipe, result: Result, notes: list[str]) -> str:
    import yaml

    best = f"{result.best_loss:.6g}" if result.best_loss < float("inf") else "not validated"
    settings = {"task": recipe.task_class.name, "config": to_dict(recipe.config), "trainer": to_dict(recipe.trainer)}
    text = yaml.safe_dump(settings, sort_keys=False, allow_unicode=True)
    lines = [f"# {recipe.name}", "", recipe.about, "", *notes, "", f"- steps: {result.step} ({result.reason})"]
    lines += [f"- minutes trained: {result.seconds / 60:.1f}", f"- best validation loss: {best}"]
    return "\n".join([*lines, "", "```yaml", text.rstrip(), "```", ""])


def _task_class(name: str) -> type[Task]:
    from crossmodal.training.task import Task
    from crossmodal.training.tasks import task_class

    if ":" not in name:
        return task_class(name)
    cls = _imported(name, "task")
    if not (isinstance(cls, type) and issubclass(cls, Task)):
        raise ConfigError(f"'{name}' is not a Task", source="task")
    return cls


def _imported(name: str, source: str) -> Any:
    module, _, attribute = name.partition(":")
    try:
        return getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError, ValueError) as error:
        raise ConfigError(f"'{name}' cannot be imported ({error})", source=source) from error


def _data_folder(
    path: Path, head: RecipeFile, data: Path | None, out: Path | None, *, needed: bool
) -> tuple[Path | None, Callable[[Path, int], object] | None]:
    """The data folder (given, to be generated, or named by the environment), and what generates it."""
    if data is not None:
        if not data.is_dir():
            raise DataError("there is no such folder", source=data, remedy="give the data folder by --data")
        return data, None
    if head.generate:
        made = (out or Path("runs") / path.parent.name / path.stem) / "data"
        return made, _imported(head.generate, f"{path}: generate")
    if variable := os.environ.get("CROSSMODAL_DATA"):
        return Path(variable), None
    if needed:
        raise DataError("needs a data folder", source=path, remedy="give it by --data or CROSSMODAL_DATA")
    return None, None


def _mentions(value: Any) -> bool:
    if isinstance(value, Mapping):
        return any(_mentions(v) for v in value.values())
    if isinstance(value, list):
        return any(_mentions(v) for v in value)
    return isinstance(value, str) and _PLACE in value


def _fill(value: Any, folder: Path) -> Any:
    if isinstance(value, Mapping):
        return {k: _fill(v, folder) for k, v in value.items()}
    if isinstance(value, list):
        return [_fill(v, folder) for v in value]
    return value.replace(_PLACE, str(folder)) if isinstance(value, str) else value
