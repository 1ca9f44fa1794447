"""What photo → face gains from each of its steps, on training people left out: the people who are held out stay so.

::

    python -m crossmodal.recipes.starter.cross_validate_faces --data DIR [--folds 3]

A decoder in closed form (ridge regression, before any training) is made of 50 of the 70 training people and measured on
the other 20, fold after fold: from the feature alone, with the skin's colour and the looks of the photo, and refined.
Constants of :mod:`crossmodal.models.appearance` and :mod:`crossmodal.refinement` are chosen by what this prints.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

import numpy as np

from crossmodal.data.face_model import build_model
from crossmodal.evaluation.faces import measure_photos, number
from crossmodal.speech2face import REFINE
from crossmodal.training.recipe import load_recipe
from crossmodal.training.tasks.face_decoder import FaceDecoderTask

LEFT_OUT = 20
RIDGE = 1.0
"""Of the regression of age, per example; components have unit variance."""
MORPHS = 20
"""Enough for a decoder that is not trained."""
SETTINGS = {"feature alone": (False, 0), "skin and looks": (True, 0), "and refined": (True, REFINE)}
"""What is shown of the photo, and steps of refinement."""
NAMES = (
    "the same, of what differs from the mean face",
    "beard, r with the true face",
    "brows, r with the true face",
    "folds beside the nose, r with the true face",
    "shade below the eyes, r with the true face",
    "hair, mean difference of colour",
    "feature distance, photo to drawn",
)


def fold(task: FaceDecoderTask, left_out: list[str], view: int) -> dict[str, dict[str, float]]:
    """Figures of each of :data:`SETTINGS`, for the people of one fold."""
    network, found = task.describer.network, {}

    def describe(chips: np.ndarray) -> np.ndarray:
        return network.embed(chips).numpy()  # type: ignore[operator]

    for name, (shown, steps) in SETTINGS.items():
        figures, _ = measure_photos(
            task.decoder.eval(), task.prepared, left_out, describe, view=view, shown=shown, network=network,
            steps=steps,
        )  # fmt: skip
        found[name] = {f.name.split(": ", 1)[1]: f.value for f in figures}
    return found


def age_in_textures(task: FaceDecoderTask, folds: int = 10) -> tuple[float, int]:
    """Can age be told from a person's own aligned texture at all? Cross-validated r of a ridge regression on the
    components of the face with the true age's logarithm, and n."""
    codes = build_model(task.prepared.aligned, task.people, task.config.model).codes.face.double().numpy()
    ages = np.array([number(task.prepared.attributes[i].get("age", "")) for i in task.people])
    known = np.isfinite(ages)
    x, y = codes[known], np.log(ages[known])
    part = np.random.default_rng(0).permutation(len(x)) % folds
    read = np.zeros(len(x))
    for k in range(folds):
        some, mean = part != k, y[part != k].mean()
        gram = x[some].T @ x[some] + RIDGE * some.sum() * np.eye(x.shape[1])
        read[~some] = x[~some] @ np.linalg.solve(gram, x[some].T @ (y[some] - mean)) + mean
    return float(np.corrcoef(read, y)[0, 1]), len(x)


def main() -> None:
    """Read the command line and print a table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="folder of the openly licensed data")
    parser.add_argument("--folds", type=int, default=3, help="how many times 20 people are left out")
    arguments = parser.parse_args()
    recipe = load_recipe("starter/face_decoder", data=arguments.data)
    first = FaceDecoderTask(recipe.config)
    names = np.array(first.prepared.aligned.names)[first.people]
    r, n = age_in_textures(first)
    print(f"age read in people's own textures, cross-validated: r {r:.2f}, n {n}\n", flush=True)
    results: dict[tuple[str, str, int], list[float]] = {}
    for seed in range(arguments.folds):
        left_out = sorted(np.random.default_rng(seed).permutation(names)[:LEFT_OUT].tolist())
        held_out = (*recipe.config.held_out, *left_out)
        task = FaceDecoderTask(replace(recipe.config, held_out=held_out, morphs=MORPHS))
        for view in (0, 1):
            for setting, values in fold(task, left_out, view).items():
                for name in NAMES:
                    results.setdefault((name, setting, view), []).append(values[name])
    print(f"neutral / smiling photo, mean of {arguments.folds} folds of {LEFT_OUT} people\n")
    print("| figure | " + " | ".join(SETTINGS) + " |\n| --- |" + " --- |" * len(SETTINGS))
    for name in NAMES:
        cells = [" / ".join(f"{np.mean(results[name, s, view]):.2f}" for view in (0, 1)) for s in SETTINGS]
        print(f"| {name.removeprefix('the same, of ')} | " + " | ".join(cells) + " |")


if __name__ == "__main__":
    main()
