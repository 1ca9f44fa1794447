"""``crossmodal doctor``: is everything there, and if not, how to get it."""

from __future__ import annotations

import importlib
import importlib.util
from typing import Any

import typer

from crossmodal import __version__
from crossmodal.cli.common import Json, print_json

# package → (import name, what it is for, how to get it); the first group is required
_REQUIRED: dict[str, tuple[str, str]] = {
    "torch": ("torch", "every network"),
    "torchaudio": ("torchaudio", "AST features, evaluation"),
    "torchvision": ("torchvision", "VGG19 face encoder"),
    "coqui-tts": ("TTS", "alternative acoustic model and HiFi-GAN"),
    "facenet-pytorch": ("facenet_pytorch", "face detection"),
    "face_recognition_models": ("face_recognition_models", "face features of the starter"),
    "resemblyzer": ("resemblyzer", "speaker embeddings of the starter"),
    "resemble-perth": ("perth", "watermark"),
    "soundfile": ("soundfile", "sound files"),
    "av": ("av", "video and AAC sound"),
    "pillow": ("PIL", "pictures"),
    "librosa": ("librosa", "needed by coqui-tts, resemblyzer and the watermark"),
    "pyworld": ("pyworld", "F0"),
    "safetensors": ("safetensors", "weights"),
    "huggingface_hub": ("huggingface_hub", "bundles from the hub"),
}
# Those of compiled code that may be there and yet not fit the others: they are loaded, not only looked for.
_COMPILED = ("torch", "torchaudio", "torchvision", "soundfile", "av", "PIL", "pyworld")
_OPTIONAL: dict[str, tuple[str, str, str]] = {
    "pillow-heif": ("pillow_heif", "HEIC photos", "heic"),
    "lightning": ("lightning", "training", "train"),
    "tensorboard": ("tensorboard", "training logs", "train"),
    "pyarrow": ("pyarrow", "data manifests", "train"),
    "pesq": ("pesq", "vocoder quality", "eval"),
    "pocketsphinx": ("pocketsphinx", "recogniser of the evaluation, alignment", "eval"),
    "scikit-learn": ("sklearn", "probes of the evaluation", "eval"),
}


def _version(distribution: str, module: str) -> str | None:
    import importlib.metadata

    if importlib.util.find_spec(module) is None:
        return None
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return "unknown version"


def _fault(module: str) -> str:
    """Why a package that is there cannot be loaded; empty if it can."""
    try:
        importlib.import_module(module)
    except Exception as error:  # a library that does not fit raises almost anything
        return " ".join(str(error).split())[:160] or type(error).__name__
    return ""


def _report() -> tuple[list[dict[str, Any]], bool]:
    import platform

    rows: list[dict[str, Any]] = []

    def row(name: str, state: str, detail: str) -> None:
        rows.append({"check": name, "state": state, "detail": detail})

    row("crossmodal", "ok", __version__)
    row("python", "ok", f"{platform.python_version()} on {platform.system()} {platform.machine()}")
    for name, (module, purpose) in _REQUIRED.items():
        version = _version(name, module)
        if version and module in _COMPILED and (fault := _fault(module)):
            row(name, "broken", f"{version} cannot be loaded ({fault}): pip install --force-reinstall {name}")
        else:
            row(name, "ok" if version else "missing", version or f"{purpose}: pip install {name}")
    for name, (module, purpose, extra) in _OPTIONAL.items():
        version = _version(name, module)
        row(name, "ok" if version else "optional", version or f"{purpose}: pip install 'crossmodal[{extra}]'")
    if all(r["state"] == "ok" for r in rows if r["check"] == "torch"):
        import torch

        gpus = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
        row("device", "ok", ", ".join(gpus) or f"CPU, {torch.get_num_threads()} threads (no CUDA device)")
    from crossmodal.bundle import Bundle
    from crossmodal.errors import CrossmodalError

    try:
        bundle = Bundle.open()
        row("starter bundle", "ok", f"{len(bundle.verify())} files verified in {bundle.folder}")
    except CrossmodalError as error:
        row("starter bundle", "broken", str(error))
    try:
        from crossmodal.watermark import load_network

        load_network()
        row("watermark", "ok", "the watermarker loads")
    except CrossmodalError as error:
        row("watermark", "broken", str(error))
    return rows, all(r["state"] in ("ok", "optional") for r in rows)


def register(app: typer.Typer) -> None:
    """Add the command."""

    @app.command()
    def doctor(json: Json = False) -> None:
        """Check versions, devices, models and what is missing, and say how to get it. Exit code 1 if something is."""
        rows, healthy = _report()
        if json:
            print_json({"healthy": healthy, "checks": rows})
        else:
            marks = {"ok": "ok      ", "optional": "optional", "missing": "MISSING ", "broken": "BROKEN  "}
            for r in rows:
                typer.echo(f"{marks[r['state']]}  {r['check']:<24} {r['detail']}")
        if not healthy:
            raise typer.Exit(1)
