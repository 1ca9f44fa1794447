"""onnxruntime against PyTorch, in pairs: the same work by both, turn about, in one run on one machine.

Another program on the machine slows both members of a pair; what is reported is the ratio within pairs, of the time
that passed and of the time the processors worked (user and system, all threads).
"""

from __future__ import annotations

import json
import math
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from crossmodal.bundle import Bundle
from crossmodal.evaluation.figures import Figure, figure
from crossmodal.onnx_export import export_bundle, graphs_of

Times = tuple[float, float]
"""Seconds that passed, seconds that the processors worked."""
FACE = ("speaker-encoder", "feature-head", "face-decoder")
SPEAK = ("face-features", "face-encoder", "acoustic-text", "acoustic-frames", "vocoder")
SIZES = {"speaker-encoder": (7, 160), "acoustic-text": (1, 45), "acoustic-frames": (1, 60), "vocoder": (1, 240)}
"""Batch and length of a run from cold: six seconds heard, three seconds said; else one of everything."""


@dataclass(frozen=True)
class Comparison:
    """One piece of work done by both."""

    name: str
    torch: list[Times]
    onnx: list[Times]

    def figures(self) -> list[Figure]:
        """Ratios onnxruntime ÷ PyTorch (geometric means over pairs, with intervals), below 1 where it is quicker."""
        found = []
        for place, what in enumerate(("wall", "CPU")):
            ratios = [math.log(o[place] / t[place]) for o, t in zip(self.onnx, self.torch, strict=True)]
            label = f"{self.name}: {what}, onnxruntime ÷ PyTorch"
            found.append(
                figure(label, ratios, statistic=lambda rows: math.exp(rows.mean()), reference=1.0,
                       reference_name="equal")
            )  # fmt: skip
        return found

    def medians(self) -> dict[str, float]:
        """Seconds of each, by name."""
        sides = {"torch": self.torch, "onnx": self.onnx}
        return {
            f"{side}_{what}": float(np.median([times[place] for times in values]))
            for side, values in sides.items()
            for place, what in enumerate(("wall", "cpu"))
        }


def compare(bundle: Bundle, *, runs: int, cold: bool = True, threads: int = 0) -> Iterator[Comparison]:
    """Time both journeys warm, and their networks from a cold start, by PyTorch and by onnxruntime.

    Args:
        bundle: any; its networks are exported first if it holds no ONNX.
        runs: pairs of each comparison.
        cold: also start processes.
        threads: of each; 0 leaves their number to them.

    Raises:
        BundleError: the bundle cannot be exported. DependencyError: onnxruntime is not installed.
    """
    with tempfile.TemporaryDirectory() as scratch:
        if "onnx/onnx.yaml" not in bundle.info.files:
            export_bundle(bundle, Path(scratch) / "b")
            bundle = Bundle.open(Path(scratch) / "b")
        yield from _warm(bundle, runs, threads)
        if cold:
            yield from _cold(bundle, runs, threads, Path(scratch))


def _warm(bundle: Bundle, runs: int, threads: int) -> Iterator[Comparison]:
    import soundfile
    import torch

    from crossmodal.face2speech import Face2Speech
    from crossmodal.onnx_runtime import use_onnx
    from crossmodal.speech2face import Speech2Face

    if threads:
        torch.set_num_threads(threads)
    waveform, rate = soundfile.read(bundle.file("examples/voice.wav"), dtype="float32")
    photo, voice = bundle.file("examples/face.png"), np.resize(waveform, 6 * rate)
    pair = (Speech2Face(bundle, "cpu"), use_onnx(Speech2Face(bundle, "cpu"), threads))
    speakers = [Face2Speech(bundle, "cpu").share(journey) for journey in pair]
    embedding = speakers[0].face_embedding(photo)
    text = "The north wind and the sun argued about their strength."

    def both(work: Callable[[int], object]) -> tuple[Callable[[], object], Callable[[], object]]:
        return lambda: work(0), lambda: work(1)

    work = {
        "face, 6 s of speech": both(lambda i: pair[i](voice, sample_rate=rate)),
        "4 faces, 6 s of speech": both(lambda i: pair[i](voice, sample_rate=rate, n=4)),
        "speech, 10 words, voice known": both(lambda i: speakers[i].speak(text, embedding=embedding)),
        "speech, 10 words, from a photo": both(lambda i: speakers[i](photo, text)),
        "speech, 60 words, voice known": both(lambda i: speakers[i].speak(f"{text} " * 6, embedding=embedding)),
    }
    for name, (by_torch, by_onnx) in work.items():
        yield _alternate(f"warm: {name}", lambda f=by_torch: _timed(f), lambda f=by_onnx: _timed(f), runs)  # type: ignore[misc]


def _cold(bundle: Bundle, runs: int, threads: int, scratch: Path) -> Iterator[Comparison]:
    """Whole processes: import, open the networks, run each once on the same numbers; sound and text are not read."""
    from crossmodal.models.exportable import exportable

    roles = {name: str(graph["role"]) for name, graph in graphs_of(bundle).items()}
    for journey, names in (("face", FACE), ("speech", SPEAK)):
        present = [name for name in names if name in roles]
        jobs = []
        for name in present:
            graph = exportable(roles[name], bundle.load(roles[name]))[name]
            values = graph.example(*SIZES.get(name, (1, 1)), 0)
            inputs: dict[str, Any] = {k: v.numpy() for k, v in zip(graph.inputs, values, strict=True)}
            np.savez(scratch / f"{name}.npz", **inputs)
            jobs.append([name, roles[name], str(bundle.folder / "onnx" / f"{name}.onnx"), str(scratch / f"{name}.npz")])
        given = json.dumps({"bundle": str(bundle.folder), "threads": threads, "jobs": jobs})
        name = f"cold: the networks of {journey}, a new process"
        yield _alternate(name, lambda g=given: _process(_TORCH, g), lambda g=given: _process(_ONNX, g), runs)  # type: ignore[misc]


_ONNX = """
import json, sys
import numpy as np, onnxruntime as ort
given = json.loads(sys.argv[1])
options = ort.SessionOptions()
options.intra_op_num_threads = given["threads"]
for _, _, path, values in given["jobs"]:
    session = ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    session.run(None, dict(np.load(values)))
"""
_TORCH = """
import json, sys
import numpy as np, torch
from crossmodal.bundle import Bundle
given = json.loads(sys.argv[1])
if given["threads"]:
    torch.set_num_threads(given["threads"])
bundle, loaded = Bundle.open(given["bundle"]), {}
own = {"feature-head": lambda n, v: n.mode(v[0]), "face-decoder": lambda n, v: n(v[0])}
own["vocoder"] = lambda n, v: n(*v[:2])
with torch.inference_mode():
    for name, role, _, values in given["jobs"]:
        network = loaded[role] = loaded.get(role) or bundle.load(role)
        tensors = [torch.from_numpy(value) for value in np.load(values).values()]
        if role == "acoustic":
            from crossmodal.models.exportable import exportable
            exportable(role, network)[name](*tensors)
        else:
            own.get(name, lambda n, v: n(*v))(network, tensors)
"""


def _alternate(name: str, by_torch: Callable[[], Times], by_onnx: Callable[[], Times], runs: int) -> Comparison:
    """Pairs in which each goes first half of the time, after one of each to warm up."""
    by_torch(), by_onnx()
    found: dict[str, list[Times]] = {"torch": [], "onnx": []}
    for number in range(runs):
        order = [("torch", by_torch), ("onnx", by_onnx)]
        for side, work in order if number % 2 == 0 else order[::-1]:
            found[side].append(work())
    return Comparison(name, found["torch"], found["onnx"])


def _timed(work: Callable[[], object]) -> Times:
    wall, cpu = time.perf_counter(), time.process_time()
    work()
    return time.perf_counter() - wall, time.process_time() - cpu


def _process(code: str, argument: str) -> Times:
    def used() -> float:
        usage = resource.getrusage(resource.RUSAGE_CHILDREN)
        return usage.ru_utime + usage.ru_stime

    wall, cpu = time.perf_counter(), used()
    subprocess.run([sys.executable, "-c", code, argument], check=True, capture_output=True, env=os.environ)
    return time.perf_counter() - wall, used() - cpu


def as_row(comparison: Comparison) -> dict[str, Any]:
    """For JSON: medians in seconds, ratios with their intervals."""
    ratios = [found.as_dict() for found in comparison.figures()]
    return {"name": comparison.name, "seconds": comparison.medians(), "ratios": ratios}
