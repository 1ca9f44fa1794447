"""``crossmodal train``: train any network of the library from a recipe."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any

import typer

from crossmodal.cli.common import Json, print_json, say


def register(app: typer.Typer) -> None:
    """Add the command."""

    @app.command()
    def train(
        recipe: Annotated[
            str,
            typer.Argument(
                help="A YAML file, or folder or folder/file of a packaged recipe (default file: full).",
                show_default=False,
            ),
        ] = "",
        settings: Annotated[
            list[str] | None,
            typer.Option("--set", metavar="KEY=VALUE", help="Change the recipe: --set trainer.batch_size=64."),
        ] = None,
        data: Annotated[Path | None, typer.Option(help="The data folder; CROSSMODAL_DATA if not given.")] = None,
        out: Annotated[Path | None, typer.Option(help="The run's folder; runs/RECIPE if not given.")] = None,
        devices: Annotated[int | None, typer.Option(min=1, help="GPUs (or processes) on this machine.")] = None,
        nodes: Annotated[int | None, typer.Option(min=1, help="Machines.")] = None,
        strategy: Annotated[str | None, typer.Option(help="Several devices: ddp or fsdp.")] = None,
        precision: Annotated[str | None, typer.Option(help="fp32, bf16 or fp16.")] = None,
        steps: Annotated[int | None, typer.Option(min=1, help="Stop after so many optimiser steps.")] = None,
        minutes: Annotated[float | None, typer.Option(min=0, help="Stop after so many minutes.")] = None,
        resume: Annotated[
            bool,
            typer.Option("--resume/--no-resume", help="Go on where the run in --out stopped, or discard it."),
        ] = True,
        benchmark: Annotated[
            bool, typer.Option("--benchmark", help="Train nothing; print a table of throughput.")
        ] = False,
        batch_sizes: Annotated[
            str, typer.Option(help="Of --benchmark, separated by commas; the recipe's own if not given.")
        ] = "",
        list_recipes: Annotated[bool, typer.Option("--list", help="List the packaged recipes and exit.")] = False,
        json: Json = False,
    ) -> None:
        """Train a network from a recipe: data to bundle, on one CPU or many GPUs. A stopped run goes on by itself.

        Ctrl-C or SIGTERM ends it after the current step, with a checkpoint and the bundle so far; exit code 130.
        """
        from crossmodal.config import merge
        from crossmodal.training import recipe as recipes

        if list_recipes:
            names = recipes.packaged_recipes()
            about = {name: recipes.read_recipe(recipes.find_recipe(name)).get("about", "") for name in names}
            if json:
                print_json({"recipes": about})
            else:
                typer.echo("\n".join(f"{name:28} {line}" for name, line in about.items()))
            return
        if not recipe:
            raise typer.BadParameter("give a recipe (crossmodal train --list shows them)")
        given = {
            "devices": devices,
            "nodes": nodes,
            "strategy": strategy,
            "precision": precision,
            "steps": steps,
            "minutes": minutes,
        }
        flags: dict[str, Any] = {"trainer": {key: value for key, value in given.items() if value is not None}}
        overlay = merge(recipes.parse_settings(settings or []), flags)
        path = recipes.find_recipe(recipe)
        out = out or Path("runs") / path.parent.name / path.stem
        loaded = recipes.load_recipe(recipe, overlay, data=data, out=out)
        if benchmark:
            from crossmodal.training.benchmark import measure, table

            sizes = [int(size) for size in batch_sizes.split(",")] if batch_sizes else [loaded.trainer.batch_size]
            rows = measure(loaded, sizes)
            if json:
                print_json([vars(row) for row in rows])
            else:
                typer.echo(table(loaded, rows))
            return
        first = os.environ.get("LOCAL_RANK", "0") == "0" and os.environ.get("NODE_RANK", "0") == "0"
        say(f"{loaded.name}: {loaded.about}\nrecipe {path}, run {out}", quiet=not first)
        result, exported = recipes.train(loaded, out, resume=resume)
        if not first:
            return
        if json:
            print_json({**vars(result), "export": exported})
        else:
            best = "" if result.best_loss == float("inf") else f", best validation loss {result.best_loss:.6g}"
            typer.echo(f"stopped at step {result.step} ({result.reason}){best}; bundle part: {exported}")
        if result.reason == "interrupted":
            raise typer.Exit(130)
