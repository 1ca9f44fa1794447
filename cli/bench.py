"""``crossmodal bench``: how long things take, here."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from crossmodal.cli.common import BundleOption, Device, Json, print_json, say

TEN_WORDS = "The north wind and the sun argued about their strength."
SIXTY_WORDS = (
    "The north wind and the sun argued about which of them was the stronger, when a traveller came along wrapped in a "
    "warm cloak. They agreed that the one who first made the traveller take his cloak off should be called stronger "
    "than the other. Then the north wind blew as hard as he could, and still the traveller held on to it."
)


def register(app: typer.Typer) -> None:
    """Add the command."""

    @app.command()
    def bench(
        runs: Annotated[int, typer.Option(min=1, help="Runs of each measurement; the median is printed.")] = 5,
        cold: Annotated[bool, typer.Option("--cold/--no-cold", help="Also time whole processes.")] = True,
        onnx: Annotated[
            bool, typer.Option("--onnx", help="Compare onnxruntime with PyTorch instead, in pairs, on the CPU.")
        ] = False,
        threads: Annotated[int, typer.Option(min=0, help="With --onnx: of each; 0 leaves it to them.")] = 0,
        bundle: BundleOption = "starter",
        device: Device = "auto",
        json: Json = False,
    ) -> None:
        """Time start-up, both journeys cold and warm, and the real-time factor of speech (processing ÷ duration)."""
        if onnx:
            _compare_onnx(bundle, runs, cold, threads, json)
            return
        import statistics

        rows: list[dict[str, Any]] = []

        def measure(name: str, unit: str, action: Callable[[], float | None], *, warm_up: int = 1) -> None:
            for _ in range(warm_up):
                action()
            values = []
            for _ in range(runs):
                start = time.perf_counter()
                value = action()
                values.append(time.perf_counter() - start if value is None else value)
            rows.append(
                {
                    "what": name,
                    "unit": unit,
                    "median": statistics.median(values),
                    "min": min(values),
                    "max": max(values),
                }
            )
            if not json:
                r = rows[-1]
                say(f"{name:<52} {r['median']:8.3f} {unit:<4} (min {r['min']:.3f}, max {r['max']:.3f}, n = {runs})")

        if not json:
            say("measuring; every figure is the median of whole runs")
        with tempfile.TemporaryDirectory() as folder:
            _bench(measure, bundle, device, cold, Path(folder))
        if json:
            print_json({"runs": runs, "figures": rows})


def _compare_onnx(source: str, runs: int, cold: bool, threads: int, json: bool) -> None:
    """Ratios onnxruntime ÷ PyTorch, below 1 where onnxruntime is quicker."""
    from crossmodal.bundle import Bundle
    from crossmodal.onnx_bench import as_row, compare

    rows = []
    for comparison in compare(Bundle.open(source), runs=runs, cold=cold, threads=threads):
        rows.append(as_row(comparison))
        if not json:
            seconds = comparison.medians()
            say(
                f"{comparison.name}: medians PyTorch {seconds['torch_wall']:.3f} s (CPU {seconds['torch_cpu']:.3f} s), "
                f"onnxruntime {seconds['onnx_wall']:.3f} s (CPU {seconds['onnx_cpu']:.3f} s)"
            )
            for figure in comparison.figures():
                say(f"  {figure.line()}")
    if json:
        print_json({"runs": runs, "threads": threads, "comparisons": rows})


def _bench(measure: Callable[..., None], source: str, device: str, cold: bool, folder: Path) -> None:
    def process(*arguments: str) -> Callable[[], None]:
        def run() -> None:
            subprocess.run([sys.executable, *arguments], check=True, capture_output=True, cwd=folder)

        return run

    command = ("-c", "from crossmodal.cli import main; main()")
    measure("python -c pass", "s", process("-c", "pass"))
    measure("import crossmodal", "s", process("-c", "import crossmodal"))
    measure("crossmodal --help", "s", process(*command, "--help"))

    import soundfile

    from crossmodal.bundle import Bundle
    from crossmodal.face2speech import Face2Speech
    from crossmodal.speech2face import Speech2Face

    opened = Bundle.open(source)
    voice, photo = opened.file("examples/voice.wav"), opened.file("examples/face.png")
    if cold:
        options = ("--bundle", source, "--device", device, "--quiet")
        measure("crossmodal face, cold", "s", process(*command, "face", str(voice), "-o", "f.png", *options))
        measure(
            "crossmodal speak, cold, 10 words",
            "s",
            process(*command, "speak", TEN_WORDS, "--face", str(photo), "-o", "s.wav", *options),
        )
    s2f = Speech2Face(opened, device)
    f2s = Face2Speech(opened, device).share(s2f)
    waveform, rate = soundfile.read(voice, dtype="float32")
    six = waveform[: 6 * rate] if len(waveform) >= 6 * rate else _repeat(waveform, 6 * rate)

    measure("face, warm, 6 s of speech", "s", lambda: (s2f(six, sample_rate=rate), None)[1])
    measure("4 faces, warm, 6 s of speech", "s", lambda: (s2f(six, sample_rate=rate, n=4), None)[1])
    measure("reface, warm", "s", lambda: (s2f.reface(photo), None)[1])
    embedding = f2s.face_embedding(photo)

    def real_time_factor(text: str, save: bool) -> float:
        start = time.perf_counter()
        speech = f2s.speak(text, embedding=embedding)
        if save:
            speech.save(folder / "rtf.wav")
        return (time.perf_counter() - start) / speech.seconds

    measure("speech, 10 words", "RTF", lambda: real_time_factor(TEN_WORDS, False))
    measure("speech, 60 words", "RTF", lambda: real_time_factor(SIXTY_WORDS, False))
    measure("speech, 60 words, watermarked and saved", "RTF", lambda: real_time_factor(SIXTY_WORDS, True))


def _repeat(waveform: Any, length: int) -> Any:
    import numpy as np

    return np.resize(waveform, length)
