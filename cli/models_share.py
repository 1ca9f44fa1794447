"""``crossmodal models compose``, ``push`` and ``pull``: bundles out of parts, to the Hugging Face Hub and from it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from crossmodal.cli.common import Json, print_json, say, working


def register(group: typer.Typer) -> None:
    """Add the commands to ``crossmodal models``."""
    group.command()(compose)
    group.command()(push)
    group.command()(pull)


def compose(
    parts: Annotated[list[str], typer.Argument(help="Parts or bundles; of two with one role the later wins.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder of the bundle to write.")],
    base: Annotated[str, typer.Option(help="What fills the other roles: a bundle, or 'none'.")] = "starter",
    without: Annotated[
        list[str] | None, typer.Option(help="A role to leave out; may be given several times.", show_default=False)
    ] = None,
    name: Annotated[str, typer.Option(help="Name of the bundle.")] = "composed",
    json: Json = False,
) -> None:
    """Make a bundle of parts: training runs' exports, imported weights, other bundles.

    Roles that no part fills come from the starter. Networks that hand vectors to each other must name the same space.

    Example:

        crossmodal models compose decoder voice-encoder --without feature-head -o mine
    """
    from crossmodal.bundle import Bundle
    from crossmodal.config import to_dict
    from crossmodal.parts import compose as make

    make(parts, out, base=None if base == "none" else base, without=without or (), name=name)
    info = Bundle.open(out).info
    if json:
        print_json({"output": out, **to_dict(info)})
    else:
        say(f"wrote {out}: {', '.join(f'{role} ({entry.kind})' for role, entry in info.modules.items())}")


def push(
    folder: Annotated[str, typer.Argument(help="Bundle folder, or 'starter'.")],
    repo: Annotated[str, typer.Argument(help="user/name on the Hugging Face Hub.")],
    public: Annotated[bool, typer.Option("--public", help="Let everyone have it; otherwise it is private.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="List what would be sent, and send nothing.")] = False,
    message: Annotated[str, typer.Option(help="Of the commit.", show_default=False)] = "",
    json: Json = False,
) -> None:
    """Send a bundle to the Hugging Face Hub: verified first, with its card, private unless --public.

    You have to be logged in there (hf auth login). The licence of imported weights may forbid to hand them on.
    """
    from crossmodal import hub
    from crossmodal.config import to_dict

    hub.check_name(repo)
    bundle, files = hub.plan(folder)
    total = sum(file.bytes for file in files)
    licence = bundle.info.licence or "not stated"
    if not dry_run:
        say(f"sending {len(files)} files, {total / 1e6:.1f} MB; licence: {licence}", quiet=json)
        with working("sending", quiet=json):
            address = hub.push(folder, repo, public=public, message=message)
        if json:
            print_json({"repo": repo, "commit": address, "public": public})
        else:
            typer.echo(address)
        return
    if json:
        rows = [to_dict(file) for file in files]
        print_json({"repo": repo, "public": public, "licence": licence, "bytes": total, "files": rows})
        return
    for file in files:
        typer.echo(f"{file.sha256}  {file.bytes:>12,}  {file.name}")
    kind = "public" if public else "private"
    say(f"would send {len(files)} files, {total / 1e6:.1f} MB, to {repo} ({kind}); licence: {licence}")


def pull(
    repo: Annotated[str, typer.Argument(help="user/name, or user/name@revision, on the Hugging Face Hub.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="New folder to write.")],
    json: Json = False,
) -> None:
    """Fetch a bundle from the Hugging Face Hub to a folder: whole and verified, or not at all."""
    from crossmodal import hub
    from crossmodal.bundle import Bundle

    with working("fetching", quiet=json):
        folder = hub.pull(repo, out)
    info = Bundle.open(folder).info
    if json:
        print_json({"output": folder, "name": info.name, "version": info.version, "licence": info.licence})
    else:
        say(f"wrote {folder}: {info.name} {info.version}; licence: {info.licence or 'not stated'}")
