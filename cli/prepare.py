"""``crossmodal prepare``: a data set on disk → manifest, split and features; joins and the corpus probe."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any

import typer

from crossmodal.cli.common import Json, print_json

_HELP = "Prepare a data set: manifest, split by identity, features. Stop and start it as you like."


def register(app: typer.Typer) -> None:
    """Add ``crossmodal prepare`` to the app."""
    app.command("prepare", help=_HELP)(prepare)


def prepare(
    data_set: Annotated[
        str,
        typer.Argument(
            metavar="SET",
            help="Data set (arctic, voxceleb1, folder, ...), 'list' to see them, 'join' (ROOT: manifest of voices, and "
            "--faces), 'manifest' (ROOT: a manifest), or 'probe' (ROOT: a folder of prepared folders).",
        ),
    ],
    root: Annotated[Path | None, typer.Argument(metavar="ROOT", help="Where it was unpacked.")] = None,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Folder for the result.")] = None,
    features: Annotated[str, typer.Option(help="Comma-separated features, e.g. spectrogram,dlib-128,ge2e-256.")] = "",
    voices_of: Annotated[
        str | None, typer.Option(help="Bundle whose speaker space is a feature too, e.g. an imported YourTTS.")
    ] = None,
    workers: Annotated[int, typer.Option(min=0, help="Processes; 0: one a core.")] = 0,
    shard: Annotated[str, typer.Option(metavar="i/n", help="This machine's part of the work, 1/n to n/n.")] = "1/1",
    limit: Annotated[int | None, typer.Option(min=1, help="At most so many rows.")] = None,
    per_person: Annotated[int | None, typer.Option(min=1, help="At most so many rows of a person.")] = None,
    split: Annotated[str, typer.Option(help="Shares of train,validation,test by identity, or 'none'.")] = "0.8,0.1,0.1",
    seed: Annotated[int, typer.Option(help="Of the split.")] = 0,
    parts: Annotated[str, typer.Option(help="Use the set's own parts: dev=train,test=test.")] = "",
    held_out: Annotated[list[Path] | None, typer.Option(help="Manifest whose people must not be in the data.")] = None,
    only: Annotated[str, typer.Option(help="Leave out half of what there is: voices or faces.")] = "",
    faces: Annotated[Path | None, typer.Option(help="join: the manifest of faces.")] = None,
    pair: Annotated[bool, typer.Option(help="join: rows with a voice and a picture.")] = False,
    several_faces: Annotated[str, typer.Option(help="Frames with several faces: largest or skip.")] = "largest",
    retry: Annotated[bool, typer.Option(help="Try again what failed before.")] = False,
    fetch: Annotated[bool, typer.Option(help="avspeech: download missing videos with yt-dlp.")] = False,
    json_output: Json = False,
) -> None:
    """Prepare a data set."""
    import dataclasses

    from crossmodal.data.prepare import PrepareOptions
    from crossmodal.data.prepare import prepare as run
    from crossmodal.data.video import VideoOptions
    from crossmodal.errors import ConfigError

    if data_set == "list":
        _list_sets(json_output)
        return
    if root is None:
        raise ConfigError("needs the folder of the data", source=data_set, remedy="crossmodal prepare SET ROOT -o OUT")
    if data_set == "probe":
        _probe(root, features or "ge2e-256", per_person or 20, seed, json_output)
        return
    if out is None:
        raise ConfigError("needs a folder for the result", source="prepare", remedy="add -o OUT")
    if several_faces not in ("largest", "skip"):
        raise ConfigError(f"'{several_faces}' is not known", source="--several-faces", remedy="use largest or skip")
    if voices_of:
        from crossmodal.data.features import VOICES_VARIABLE

        os.environ[VOICES_VARIABLE] = voices_of
    names = tuple(name.strip() for name in features.split(",") if name.strip())
    options = PrepareOptions(
        features=names,
        workers=workers,
        shard=_shard(shard),
        limit=limit,
        per_person=per_person,
        ratios=_ratios(split),
        seed=seed,
        parts=_pairs(parts) if parts else None,
        held_out=tuple(held_out or ()),
        retry=retry,
        video=VideoOptions(several=several_faces),  # type: ignore[arg-type]
    )
    manifest = _halved(_manifest(data_set, root, faces, pair, fetch, limit), only)
    with _Bar(hidden=json_output) as bar:
        summary = run(manifest, out, options, progress=bar.update)
    if json_output:
        print_json(dataclasses.asdict(summary))
        return
    if "join" in manifest.metadata:
        typer.echo(_join_line(manifest.metadata["join"]))
    typer.echo(str(summary))


def _manifest(data_set: str, root: Path, faces: Path | None, pair: bool, fetch: bool, limit: int | None) -> Any:
    from crossmodal.data import join, sets
    from crossmodal.data.manifest import Manifest
    from crossmodal.errors import ConfigError

    if data_set == "manifest":
        return Manifest.read(root)
    if data_set == "join":
        if faces is None:
            raise ConfigError("needs two manifests", source="join", remedy="prepare join VOICES --faces FACES -o OUT")
        joined = join.join(Manifest.read(root), Manifest.read(faces))
        return join.pair(joined) if pair else joined
    if fetch:
        from crossmodal.data.sets import avspeech

        if data_set != "avspeech":
            raise ConfigError("only avspeech can be fetched", source=data_set, remedy="download it from its own page")
        there, failed = avspeech.fetch(root, limit=limit)
        typer.echo(f"{there} videos there, {len(failed)} could not be fetched", err=True)
    return sets.manifest(data_set, root)


def _halved(manifest: Any, only: str) -> Any:
    """Voices without their faces, or faces without their voices: no frame is cut that nobody needs."""
    import dataclasses

    from crossmodal.data.manifest import Manifest
    from crossmodal.errors import ConfigError

    if not only:
        return manifest
    if only not in ("voices", "faces"):
        raise ConfigError(f"'{only}' is not known", source="--only", remedy="use voices or faces")
    kept, other = ("audio", "face") if only == "voices" else ("face", "audio")
    rows = (
        dataclasses.replace(row, **{other: None}, pairing=None) for row in manifest if getattr(row, kept) is not None
    )
    return Manifest(rows, root=manifest.root, metadata=manifest.metadata)


def _list_sets(json_output: bool) -> None:
    import importlib

    from crossmodal.data import features, sets

    modules = {name: importlib.import_module(f"crossmodal.data.sets.{name}") for name in sets.NAMES}
    about = {name: (module.__doc__ or "").strip().splitlines()[0] for name, module in modules.items()}
    if json_output:
        table = {entry.name: {"from": entry.needs, "shape": entry.shape} for entry in features.TABLE.values()}
        print_json({"sets": about, "features": table})
        return
    for name, line in about.items():
        typer.echo(f"{name:13} {line}")
    typer.echo("\nFeatures:")
    for entry in features.TABLE.values():
        typer.echo(f"{entry.name:18} from {entry.needs}: {entry.shape}")


def _probe(root: Path, feature: str, per_speaker: int, seed: int, json_output: bool) -> None:
    import dataclasses

    from crossmodal.data.probe import probe_prepared

    result = probe_prepared(root, feature, seed=seed, per_speaker=per_speaker)
    if json_output:
        print_json(dataclasses.asdict(result))
    else:
        typer.echo(str(result))


def _join_line(report: dict[str, Any]) -> str:
    lost = [*report["voice_only"], *report["face_only"], *report["ambiguous"]]
    text = (
        f"{report['matched']} people matched ({report['by_reference']} by published reference, {report['by_name']} by "
        f"name), {len(lost)} not matched"
    )
    return text + (f": {', '.join(lost[:20])}{', ...' if len(lost) > 20 else ''}" if lost else "")


def _shard(text: str) -> tuple[int, int]:
    from crossmodal.errors import ConfigError

    first, _, second = text.partition("/")
    if not (first.isdigit() and second.isdigit()):
        raise ConfigError(f"'{text}' is not i/n", source="--shard", remedy="for example 1/4")
    return int(first) - 1, int(second)


def _ratios(text: str) -> dict[str, float] | None:
    from crossmodal.errors import ConfigError

    if text == "none":
        return None
    try:
        shares = [float(share) for share in text.split(",")]
    except ValueError:
        shares = []
    if not 1 <= len(shares) <= 3:
        raise ConfigError(f"'{text}' is not train,validation,test", source="--split", remedy="for example 0.8,0.1,0.1")
    return {name: share for name, share in zip(("train", "validation", "test"), shares) if share > 0}


def _pairs(text: str) -> dict[str, str]:
    from crossmodal.errors import ConfigError

    pairs = dict(item.split("=", 1) for item in text.split(",") if item.count("=") == 1)
    if len(pairs) != len(text.split(",")):
        raise ConfigError(f"'{text}' is not part=split,...", source="--parts", remedy="for example dev=train,test=test")
    return pairs


class _Bar:
    """A Rich bar on standard error, with clips a minute and time left."""

    def __init__(self, hidden: bool) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        self.progress = Progress(
            TextColumn("preparing"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[rate]}"),
            TimeRemainingColumn(),
            console=Console(stderr=True),
            disable=hidden,
        )
        self.task: Any = None
        self.began = 0.0

    def __enter__(self) -> _Bar:
        import time

        self.began = time.monotonic()
        self.progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.progress.stop()

    def update(self, done: int, total: int) -> None:
        import time

        rate = f"{done / max(time.monotonic() - self.began, 1e-3) * 60:.0f} clips/min"
        if self.task is None:
            self.task = self.progress.add_task("rows", total=total, rate=rate)
        self.progress.update(self.task, completed=done, rate=rate)
