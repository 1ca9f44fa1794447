"""Make the starter bundle from the openly licensed data: every step of this folder's README, in order.

::

    python -m crossmodal.recipes.starter.build --data DIR            # everything that is not done yet
    python -m crossmodal.recipes.starter.build --data DIR --list     # only say what would be done
    python -m crossmodal.recipes.starter.build --data DIR --with-spectrogram   # the published voice encoder as well

A step that has left its result is not done again; one that was interrupted goes on. To redo a step, remove what shows
that it is done.
"""

from __future__ import annotations

import argparse
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Step:
    """One command and the file that shows that it is done."""

    name: str
    command: tuple[str, ...]
    """Arguments of the Python interpreter."""
    done: Path
    """``….done`` is left by :func:`run` when the command has ended well, any other file by the command itself."""


def steps(data: Path, runs: Path, *, spectrogram: bool = False) -> Iterator[Step]:
    """All steps in order; the recipes' own settings expect ``runs`` to be ``runs/starter``.

    Args:
        data: folder of the openly licensed data.
        runs: working folder.
        spectrogram: also train the voice encoder, which is no part of the bundle.
    """
    faces, speech = runs / "faces", runs / "speech"

    def module(name: str, done: Path, *arguments: object) -> Step:
        return Step(name.rsplit(".", 1)[-1], ("-m", name, *map(str, arguments)), done)

    def train(recipe: str, out: Path, prepared: Path = data) -> Step:
        code = "from crossmodal.cli import main; main()"
        command = ("-c", code, "train", f"starter/{recipe}", "--data", str(prepared), "--out", str(out))
        return Step(f"train {recipe}", command, out / ".done")  # its export is there after an interruption too

    yield module("crossmodal.data.prepared_faces", faces / "prepared" / "photos.npz", data, faces / "prepared")
    yield module("crossmodal.data.speech_features", speech / "features" / ".done", data, speech / "features")
    yield module("crossmodal.data.pseudo_speakers", speech / "pseudo" / ".done", speech / "features", speech / "pseudo")
    for name, sets in (("studio", ("arctic", "kathleen")), ("an4", ("an4",)), ("librispeech", ("librispeech",))):
        out = speech / f"align-{name}.jsonl"
        yield module("crossmodal.data.alignment", speech / f".align-{name}.done", data, out, "--sets", *sets)
    yield module("crossmodal.data.prepared_voices", faces / "voices.npz", speech / "features", faces / "voices.npz")
    yield train("face_decoder", runs / "face_decoder")
    yield train("feature_head", runs / "feature_head")
    yield train("acoustic", runs / "acoustic")
    alignments = [speech / f"align-{name}.jsonl" for name in ("an4", "librispeech", "studio")]
    told = ("--features", speech / "features", "--alignments", *alignments)
    teacher = speech / "teacher"
    yield module("crossmodal.training.teacher_forcing", teacher / ".done", runs / "acoustic" / "export", teacher, *told)
    yield train("vocoder", runs / "vocoder")
    yield train("acoustic_likeness", runs / "acoustic_likeness")
    pairs = runs / "face_encoder" / "pairs"
    sources = ("--features", speech / "features", "--pseudo", speech / "pseudo")
    yield module("crossmodal.data.pseudo_voices", pairs / ".done", faces / "prepared", pairs, *sources)
    yield train("face_encoder", runs / "face_encoder", pairs)
    if spectrogram:
        pairs = runs / "voice_encoder" / "pairs"
        voices = ("--features", speech / "features", "--voices", faces / "voices.npz")
        yield module("crossmodal.data.pseudo_faces", pairs / ".done", faces / "prepared", pairs, *voices)
        yield train("voice_encoder", runs / "voice_encoder", pairs)


def run(step: Step) -> None:
    """Run a step's command. Ctrl-C reaches the command, which ends in good order; the steps end with it.

    Raises:
        SystemExit: it failed or was interrupted, or did not leave what it should.
    """
    before = signal.signal(signal.SIGINT, lambda *_: None)
    try:
        code = subprocess.run([sys.executable, *step.command]).returncode
    finally:
        signal.signal(signal.SIGINT, before)
    if code:
        sys.exit(f"error: {step.name} ended with exit code {code}: the same command goes on from here")
    if step.done.name.endswith(".done"):
        step.done.parent.mkdir(parents=True, exist_ok=True)
        step.done.touch()
    elif not step.done.is_file():
        sys.exit(f"error: {step.name} ended well but did not leave {step.done}")


def main() -> None:
    """Read the command line and run what is missing."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="folder of the openly licensed data")
    parser.add_argument("--runs", type=Path, default=Path("runs/starter"), help="working folder")
    parser.add_argument("--out", type=Path, default=Path("runs/starter/bundle"), help="where the bundle goes")
    parser.add_argument("--card", type=Path, help="model card (Markdown) to put into the bundle")
    parser.add_argument("--with-spectrogram", action="store_true", help="also train the voice encoder (not shipped)")
    parser.add_argument("--list", action="store_true", help="only print the steps")
    arguments = parser.parse_args()
    every = steps(arguments.data, arguments.runs, spectrogram=arguments.with_spectrogram)
    todo = [step for step in every if not step.done.exists()]
    for step in todo:
        print(f"== {step.name}: {' '.join(step.command[1:])}", flush=True)
        if not arguments.list:
            run(step)
    if arguments.list:
        return
    from crossmodal.recipes.starter.assemble import assemble

    names = ("face_decoder", "feature_head", "acoustic_likeness", "vocoder", "face_encoder")
    parts = [arguments.runs / name / "export" for name in names]
    print(f"wrote {assemble(parts, arguments.out, arguments.card, arguments.data)}")


if __name__ == "__main__":
    main()
