"""``crossmodal models``: what is installed, what is in it, whether it is whole."""

from __future__ import annotations

from typing import Annotated, ClassVar

import typer

from crossmodal.cli.common import Json, print_json, say
from crossmodal.cli.lazy import LazyGroup


class _Models(LazyGroup):
    files: ClassVar = {
        "compose": "models_share",
        "push": "models_share",
        "pull": "models_share",
        "import": "models_import",
    }


Source = Annotated[str, typer.Argument(help="'starter', a bundle folder, or a Hugging Face Hub id user/repo.")]


def register(app: typer.Typer) -> None:
    """Add the command group."""
    about = "List, inspect, import, compose and share bundles of models."
    group = typer.Typer(cls=_Models, no_args_is_help=True, help=about)
    app.add_typer(group, name="models")

    @group.command("list")
    def list_(json: Json = False) -> None:
        """List the bundles that open without a network."""
        from crossmodal.bundle import list_bundles

        names = list_bundles()
        if json:
            print_json({"bundles": names})
        else:
            typer.echo("\n".join(names) if names else "none installed")

    @group.command()
    def info(
        source: Source = "starter",
        card: Annotated[bool, typer.Option("--card", help="Print the model card.")] = False,
        json: Json = False,
    ) -> None:
        """Show the modules of a bundle, their spaces and sizes, or its model card."""
        from crossmodal.bundle import ROLES, Bundle
        from crossmodal.config import to_dict

        bundle = Bundle.open(source)
        if card:
            text = bundle.file("README.md").read_text(encoding="utf-8")
            if json:
                print_json({"folder": bundle.folder, "card": text})
            else:
                typer.echo(text)
        elif json:
            print_json({"folder": bundle.folder, **to_dict(bundle.info)})
        else:
            from rich.console import Console
            from rich.table import Table

            table = Table(title=f"{bundle.info.name} {bundle.info.version} in {bundle.folder}")
            for column in ("role", "what it does", "params", "weights"):
                table.add_column(column, justify="right" if column in ("params", "weights") else "left", no_wrap=True)
            for role, m in bundle.info.modules.items():
                size = f"{bundle.info.files[m.weights].bytes / 1e6:.1f} MB" if m.weights else "package"
                table.add_row(role, ROLES[role], f"{m.parameters / 1e6:.2f} M", size)
            Console().print(table)
            for role, m in bundle.info.modules.items():
                spaces = " → ".join(filter(None, (m.input_space, m.output_space)))
                where = f"weights in the package {m.package}" if m.package else m.weights
                typer.echo(f"{role}: {m.kind}{f', {spaces}' if spaces else ''}, {where}")

    @group.command()
    def verify(source: Source = "starter", json: Json = False) -> None:
        """Check every file of a bundle against its SHA-256, and that its modules fit together."""
        from crossmodal.bundle import Bundle

        checked = Bundle.open(source).verify()
        if json:
            print_json({"verified": checked})
        else:
            say(f"{len(checked)} files verified")

    @group.command()
    def export(
        folder: Annotated[str, typer.Argument(help="New folder to write.")],
        source: Annotated[str, typer.Option("--from", help="Bundle to copy.")] = "starter",
        form: Annotated[
            str, typer.Option("--format", help="bundle: as it is; onnx: with its networks in ONNX beside.")
        ] = "bundle",
        json: Json = False,
    ) -> None:
        """Copy a bundle to a folder of its own, to change it, to put it on a hub, or with its networks in ONNX.

        Every ONNX graph is run by onnxruntime and compared with PyTorch, at three sizes, before anything is kept.

        Example:

            crossmodal models export starter-onnx --format onnx
        """
        from crossmodal.bundle import Bundle

        if form not in ("bundle", "onnx"):
            raise typer.BadParameter(f"'{form}' is not bundle or onnx", param_hint="--format")
        graphs: list[dict[str, object]] = []
        left_out: list[str] = []
        if form == "onnx":
            from crossmodal.config import to_dict
            from crossmodal.onnx_export import export_bundle

            found, left_out = export_bundle(Bundle.open(source), folder)
            graphs = [to_dict(graph) for graph in found]
        else:
            Bundle.open(source).export(folder)
        if json:
            print_json({"folder": folder, "graphs": graphs, "left_out": left_out})
            return
        for graph in graphs:
            typer.echo(
                f"{graph['file']}: {int(str(graph['bytes'])) / 1e6:.1f} MB, deviates by {graph['deviation']:.1g}"
            )
        for role in left_out:
            typer.echo(f"{role}: has no form in ONNX")
        say(f"wrote {folder}")
