"""Fill the tables of the starter's model card and of the README from measured results, and measure anew when asked.

::

    python -m crossmodal.recipes.starter.cards                              # fill from recipes/starter/figures/*.json
    python -m crossmodal.recipes.starter.cards --measure --data DIR         # measure everything first (an hour)
    python -m crossmodal.recipes.starter.cards --measure --data DIR --only speech vocoder

``make cards`` and ``make cards MEASURE=1 DATA=DIR ONLY="speech vocoder"`` do the same. What is measured, by which
command, and which figures stand in the README in which words, is in ``figures/cards.yaml``.
"""

from __future__ import annotations

import argparse
import json
import shlex
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from crossmodal.bundle import Bundle, BundleWriter, starter_folder
from crossmodal.config import load_yaml
from crossmodal.errors import DataError
from crossmodal.evaluation import cards
from crossmodal.evaluation.report import Report, read_report
from crossmodal.files import atomic_write

HERE = Path(__file__).resolve().parent
BENCH = "bench"
"""The one result that is no evaluation: timings of ``crossmodal bench``."""
FINE = 12
"""Curves of more points are for pages, not for cards."""


@dataclass(frozen=True)
class Measurement:
    """One command whose result the cards quote."""

    command: tuple[str, ...]
    """Arguments of ``crossmodal``; ``DIR`` stands for the data folder."""
    roles: tuple[str, ...]
    """Networks it measures: if one of them changes, it has to be measured again."""


class Cards:
    """The card, the README and the results they quote.

    Args:
        folder: with ``card.md`` and ``figures/``.
        readme: the README with marked places; ``None`` for an installed package, which has none.
        bundle: whose networks and card they are.
    """

    def __init__(self, folder: Path = HERE, readme: Path | None = None, bundle: Path | None = None) -> None:
        self.folder, self.readme = folder, readme
        self.bundle = bundle or starter_folder()
        content = load_yaml(folder / "figures" / "cards.yaml")
        self.words: dict[str, str] = content["modules"]
        self.measurements = {
            name: Measurement(tuple(shlex.split(entry["command"])), tuple(entry.get("roles", ())))
            for name, entry in content["measurements"].items()
        }
        self.tables: dict[str, Any] = content["tables"]

    def file(self, name: str) -> Path:
        """Where a result is kept."""
        return self.folder / "figures" / f"{name}.json"

    def results(self) -> dict[str, Report]:
        """Saved results by name; those not measured yet are left out."""
        known = [name for name in self.measurements if name != BENCH and self.file(name).is_file()]
        return {name: read_report(self.file(name)) for name in known}

    def blocks(self) -> dict[str, str]:
        """Everything that can be filled in, by the name of its place."""
        results = self.results()
        found = {name: cards.all_figures(report) for name, report in results.items()}
        found["modules"] = cards.modules(Bundle.open(self.bundle), self.words)
        for name, table in self.tables.items():
            rows = [cards.Row(**row) for row in table["rows"]]
            if block := cards.chosen_figures(table["head"], rows, results):
                found[name] = block
        if self.file(BENCH).is_file():
            found[BENCH] = cards.timings(json.loads(self.file(BENCH).read_text(encoding="utf-8")))
        return found

    def filled(self) -> dict[Path, str]:
        """What each file should hold: the card, the README."""
        blocks = self.blocks()
        files = [self.folder / "card.md"] + ([self.readme] if self.readme else [])
        return {file: cards.fill(file.read_text(encoding="utf-8"), blocks) for file in files}

    def missing(self) -> list[str]:
        """Marked places for which there is no result yet."""
        blocks = self.blocks()
        return [name for text in self.filled().values() for name in cards.names(text) if name not in blocks]

    def stale(self) -> dict[str, list[str]]:
        """Results that were measured on other networks than the bundle's, and which."""
        opened = Bundle.open(self.bundle)
        found = {n: cards.stale(r, opened, self.measurements[n].roles) for n, r in self.results().items()}
        return {name: roles for name, roles in found.items() if roles}

    def measure(self, name: str, data: Path | None, bundle: Path | None = None) -> None:
        """Run one measurement, of the bundle that ships or of ``bundle`` before it does, and keep its result.

        Raises:
            DataError: it needs the data folder, or its command fails.
        """
        command = self.measurements[name].command
        if "DIR" in command and data is None:
            raise DataError("needs the data folder", source=name, remedy="give --data DIR")
        arguments = [str(data) if word == "DIR" else word for word in command]
        arguments += ["--bundle", str(bundle)] if bundle else []
        code = "from crossmodal.cli import main; main()"
        done = subprocess.run([sys.executable, "-c", code, *arguments, "--json"], stdout=subprocess.PIPE, check=False)
        if done.returncode:
            raise DataError(f"`crossmodal {shlex.join(arguments)}` failed", source=name)
        self.keep(name, json.loads(done.stdout))

    def keep(self, name: str, content: dict[str, Any]) -> None:
        """Save one result, with the command as it stands in ``figures/cards.yaml``: no paths of this machine."""
        content["command"] = "crossmodal " + shlex.join(self.measurements[name].command)
        content["curves"] = [c for c in content.get("curves", []) if len(c["x"]) <= FINE]
        self.file(name).parent.mkdir(exist_ok=True)
        atomic_write(self.file(name), (json.dumps(content, indent=1, ensure_ascii=False) + "\n").encode())

    def write(self) -> list[Path]:
        """Fill the card, the bundle's copy of it and the README; returns what changed."""
        changed = []
        for file, text in self.filled().items():
            if text != file.read_text(encoding="utf-8"):
                atomic_write(file, text.encode())
                changed.append(file)
        card = (self.folder / "card.md").read_text(encoding="utf-8")
        if card != (self.bundle / "README.md").read_text(encoding="utf-8"):
            replace_card(self.bundle, card)
            changed.append(self.bundle / "README.md")
        return changed


def replace_card(folder: Path, card: str) -> None:
    """Give the bundle in ``folder`` another card; everything else stays, byte for byte."""
    old = Bundle.open(folder)
    modules = old.info.modules
    taken = {name for entry in modules.values() for name in (entry.config, entry.weights)} | {"README.md"}
    with BundleWriter(folder, name=old.info.name, version=old.info.version, licence=old.info.licence) as writer:
        for role in modules:
            writer.copy_module(old, role)
        for name in old.info.files:
            if name not in taken:
                writer.add_file(old.file(name), name)
        writer.card(card)


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--measure", action="store_true", help="run the commands first")
    parser.add_argument("--data", type=Path, help="folder of the openly licensed data")
    parser.add_argument("--only", nargs="*", default=[], metavar="NAME", help="measure only these")
    parser.add_argument("--bundle", type=Path, help="measure this bundle, which is to ship, not the one that does")
    parser.add_argument("--readme", type=Path, default=Path("README.md"), help="the repository's README")
    arguments = parser.parse_args()
    starter = Cards(readme=arguments.readme if arguments.readme.is_file() else None)
    unknown = sorted(set(arguments.only) - set(starter.measurements))
    if unknown:
        parser.error(f"no measurement called '{unknown[0]}'; known: {', '.join(starter.measurements)}")
    for name in starter.measurements if arguments.measure else ():
        if not arguments.only or name in arguments.only:
            print(f"== {name}", flush=True)
            starter.measure(name, arguments.data, arguments.bundle)
    for path in starter.write():
        print(f"wrote {path}")
    for name in starter.missing():
        print(f"not measured yet, left as it is: {name}")
    for name, roles in starter.stale().items():
        print(f"measured on other networks ({', '.join(roles)}): {name}; measure it again")


if __name__ == "__main__":
    main()
