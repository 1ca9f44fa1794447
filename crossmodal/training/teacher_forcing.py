"""Mels that an acoustic model predicts for recordings, in time with them, to fine-tune a vocoder on.

The acoustic model is driven by the recording's own durations, F0 and energy (teacher forcing), so that each predicted
frame belongs to a frame of the recording. Command::

    python -m crossmodal.training.teacher_forcing ACOUSTIC_BUNDLE OUT --features FOLDER --alignments FILE...

writes ``OUT/<clip id>.npy``, float16 log-mel ``(100, F)``; clips already there are not done again.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from crossmodal.bundle import Bundle
from crossmodal.errors import BundleError
from crossmodal.files import atomic_path
from crossmodal.models.acoustic import AcousticModel
from crossmodal.training.tasks.acoustic import AcousticTask, AcousticTaskConfig, example

MAX_FRAMES = 2000


def predict_mels(task: AcousticTask, model: AcousticModel, out: Path, *, per_corpus: int = 250, seed: int = 0) -> int:
    """Predict the mels of up to ``per_corpus`` training and validation clips of each corpus.

    Args:
        task: gives the aligned clips.
        model: the trained acoustic model.
        out: folder of the ``.npy`` files; made if missing.
        per_corpus: clips of each corpus, drawn at random.
        seed: of the draw.

    Returns:
        Number of files in ``out``.
    """
    clips = task.clips
    order = np.random.default_rng(seed).permutation(clips.of_split("train") + clips.of_split("validation"))
    taken: dict[str, int] = {}
    for index in map(int, order):
        entry = clips.entries[index]
        if entry.pseudo or taken.get(entry.corpus, 0) >= per_corpus:
            continue
        taken[entry.corpus] = taken.get(entry.corpus, 0) + 1
        path = out / f"{entry.id}.npy"
        if path.is_file():
            continue
        path.parent.mkdir(parents=True, exist_ok=True)
        mel = _predict(task, model, index)
        with atomic_path(path) as temporary:
            np.save(temporary, mel.astype(np.float16))
    return sum(taken.values())


@torch.inference_mode()
def _predict(task: AcousticTask, model: AcousticModel, index: int) -> np.ndarray:
    """``(100, F)`` log-mel at the recording's own level."""
    clip = task.clips[index]
    mel = task.clips.mel(clip)
    batch = task.collate([example(clip, mel, task.config, 0, min(clip.frames, MAX_FRAMES))])
    names = ("phones", "stress", "word_final", "marks", "token_mask", "embedding", "token", "position")
    predicted = model(*(batch[name] for name in names), batch["frame_mask"], batch["f0"], batch["energy"])
    return model.restore_mel(predicted.mel)[0].T.numpy() - task.clips.gain(clip)


def main(arguments: Sequence[str] | None = None) -> None:
    """Predict mels from the command line."""
    parser = argparse.ArgumentParser(description="Teacher-forced mels of recordings, to fine-tune a vocoder on.")
    parser.add_argument("acoustic", help="bundle that holds the acoustic model")
    parser.add_argument("out", type=Path)
    parser.add_argument("--features", type=Path, required=True, help="prepared speech features")
    parser.add_argument("--alignments", type=Path, nargs="+", required=True)
    parser.add_argument("--per-corpus", type=int, default=250)
    options = parser.parse_args(arguments)
    model = Bundle.open(options.acoustic).load("acoustic")
    if not isinstance(model, AcousticModel):
        raise BundleError("its acoustic model is of another kind", source=options.acoustic)
    task = AcousticTask(AcousticTaskConfig(features=options.features, alignments=tuple(options.alignments)))
    count = predict_mels(task, model, options.out, per_corpus=options.per_corpus)
    print(f"{count} predicted mels in {options.out}")


if __name__ == "__main__":
    main()
