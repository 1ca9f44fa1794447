"""``crossmodal models import state-dict``: anyone's PyTorch weights, by a map of layer names."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from crossmodal.cli.common import Json, print_json, say
from crossmodal.cli.models_import_faces import report


def register(group: typer.Typer) -> None:
    """Add the command to ``crossmodal models import``."""
    group.command("state-dict")(_state_dict)


def _state_dict(
    file: Annotated[Path, typer.Argument(help="A .pt, .pth or .safetensors file.")],
    rules: Annotated[
        str, typer.Option("--map", help="YAML file that names the layers, or a packaged map.", show_default=False)
    ] = "",
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Folder of the bundle part to write.", show_default=False)
    ] = None,
    list_: Annotated[bool, typer.Option("--list", help="Print the tensors of the file and stop.")] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print what would become what, and write nothing.")
    ] = False,
    half: Annotated[bool, typer.Option("--half", help="Store the weights as float16: half the size.")] = False,
    json: Json = False,
) -> None:
    """Import weights whose layers are called otherwise, by a map: which of their tensors is which of ours.

    Packaged maps: face-from-voice-decoder, face-from-voice-conv, face-from-voice-ast. How to write one is in
    crossmodal/models/state_map.py. Nothing is unpickled but tensors.

    Examples:

        crossmodal models import state-dict best_face_decoder.pt --list

        crossmodal models import state-dict best_face_decoder.pt --map face-from-voice-decoder -o decoder
    """
    from crossmodal.models.foreign_weights import read_state

    if not list_ and not (rules and (out or dry_run)):
        raise typer.BadParameter("give --map and --out (or --list, or --map and --dry-run)")
    state = read_state(file)
    if list_:
        rows = [
            {"name": n, "shape": list(v.shape), "dtype": str(v.dtype).removeprefix("torch.")} for n, v in state.items()
        ]
        if json:
            print_json({"tensors": rows})
        else:
            for row in rows:
                typer.echo(f"{row['name']}  {tuple(row['shape'])}  {row['dtype']}")
        return

    from crossmodal.errors import ConfigError
    from crossmodal.models.state_map import apply_map, read_map
    from crossmodal.parts import CREDITS, write_part
    from crossmodal.training.recipe import role_of

    chosen = read_map(rules)
    if chosen.credit and chosen.credit not in CREDITS:
        raise ConfigError(f"unknown credit '{chosen.credit}'", source=rules, remedy=f"known: {', '.join(CREDITS)}")
    network, matches = apply_map(state, chosen, file)
    if dry_run:
        if json:
            print_json({"kind": chosen.kind, "names": {match.ours: match.theirs for match in matches}})
        else:
            for match in matches:
                typer.echo(f"{match.ours} {tuple(match.value.shape)} ← {match.theirs}")
            say(f"{len(matches)} tensors fit {chosen.kind}; nothing was written")
        return
    assert out is not None
    notes = [f"by the map {Path(rules).name}", *chosen.notes]
    credit = CREDITS[chosen.credit] if chosen.credit else None
    role = role_of("", chosen.kind)
    write_part(out, role, network, credit=credit, files=[file], notes=notes, half=half)
    report(out, json=json)
