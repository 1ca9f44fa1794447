"""A bundle with its networks in ONNX, each checked against PyTorch when it is written.

::

    bundle.yaml, *.yaml, *.safetensors    the bundle as it was: whoever has PyTorch uses it as ever
    onnx/<graph>.onnx                     one graph a network (the acoustic model has two), listed with its checksum
    onnx/onnx.yaml                        inputs, outputs and their free axes, and the deviation found by the check

Batch and time are free in every graph. What a graph computes is defined in :mod:`crossmodal.models.exportable`.
"""

from __future__ import annotations

import shutil
import tempfile
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from crossmodal.bundle import FORMAT, Bundle
from crossmodal.config import load_yaml, save_yaml
from crossmodal.errors import BundleError, DependencyError, OutputError
from crossmodal.files import sha256

if TYPE_CHECKING:
    from crossmodal.models.exportable import Exportable

OPSET = 17
SIZES = ((2, 110, 0), (1, 131, 1), (3, 163, 2))
"""Batch, length and seed of the inputs that a graph is checked with; it is traced on the first."""
INSTALL = "pip install 'crossmodal[onnx]'"


@dataclass(frozen=True)
class ExportedGraph:
    """One graph that was written and checked."""

    role: str
    name: str
    file: str
    bytes: int
    deviation: float
    """Largest difference from PyTorch over all outputs and :data:`SIZES`, as a share of the output's largest value."""


def export_bundle(bundle: Bundle, folder: str | Path) -> tuple[list[ExportedGraph], list[str]]:
    """Copy ``bundle`` to ``folder`` (which must not exist) and add its networks in ONNX.

    Returns:
        The graphs, and the roles that have no form in ONNX (a TTS of coqui; it stays usable with PyTorch).

    Raises:
        DependencyError: onnx or onnxruntime is not installed.
        OutputError: ``folder`` exists or cannot be written.
        BundleError: a graph does not compute what its network computes.
    """
    _require()
    target = Path(folder)
    if target.exists():
        raise OutputError("exists already", source=target, remedy="name a new folder")
    target.parent.mkdir(parents=True, exist_ok=True)
    from crossmodal.models.exportable import exportable

    graphs: list[ExportedGraph] = []
    left_out: list[str] = []
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".onnx-") as scratch:
        copy = bundle.export(Path(scratch) / "b")
        (copy / "onnx").mkdir()
        signature: dict[str, Any] = {}
        for role in bundle.info.modules:
            parts = exportable(role, bundle.load(role))
            if not parts:
                left_out.append(role)
            for name, network in parts.items():
                path = copy / "onnx" / f"{name}.onnx"
                deviation = export_graph(network, path)
                graphs.append(ExportedGraph(role, name, f"onnx/{path.name}", path.stat().st_size, deviation))
                axes = {side: {k: dict(v) for k, v in getattr(network, side).items()} for side in ("inputs", "outputs")}
                signature[name] = {"role": role, **axes, "deviation": float(f"{deviation:.2g}")}
        save_yaml({"opset": OPSET, "graphs": signature}, copy / "onnx" / "onnx.yaml")
        _list_files(copy, [graph.file for graph in graphs] + ["onnx/onnx.yaml"])
        shutil.move(copy, target)
    return graphs, left_out


def export_graph(network: Exportable, path: Path) -> float:
    """Write one graph and compare it with PyTorch on inputs of other sizes → the largest relative deviation.

    A network that magnifies rounding errors is also compared in a form that does not (:meth:`Exportable.well_posed`).

    Raises:
        DependencyError: onnx or onnxruntime is not installed.
        BundleError: it cannot be exported, or deviates by more than its tolerance, 1e-4 unless it says otherwise.
    """
    if (strict := network.well_posed()) is not None:
        with tempfile.TemporaryDirectory() as scratch:
            export_graph(strict.eval(), Path(scratch) / path.name)
            check_graph(strict, Path(scratch) / path.name, tolerance=1e-4)
    _require()
    import torch

    network.eval()
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the tracer: sizes that it takes for constants are checked below
        try:
            torch.onnx.export(
                network,
                network.example(*SIZES[0]),
                str(path),
                input_names=list(network.inputs),
                output_names=list(network.outputs),
                dynamic_axes={name: axes for name, axes in {**network.inputs, **network.outputs}.items() if axes},
                opset_version=OPSET,
                dynamo=False,  # the other exporter unrolls an LSTM over time
            )
        except Exception as error:  # torch's exporter raises many classes
            raise BundleError(f"cannot be written as ONNX ({_line(error)})", source=path.stem) from error
    return check_graph(network, path)


def check_graph(network: Exportable, path: Path, *, tolerance: float | None = None) -> float:
    """Largest relative deviation of a graph from its network over :data:`SIZES`.

    Raises:
        BundleError: it is above the network's tolerance, or the graph cannot be run at another size.
    """
    tolerance = network.tolerance if tolerance is None else tolerance
    import torch

    session, worst = open_session(path), 0.0
    for batch, length, seed in SIZES:
        values = network.example(batch, length, seed)
        with torch.no_grad():
            expected = network(*values)
        expected = expected if isinstance(expected, tuple) else (expected,)
        try:
            found = session.run(None, {name: v.numpy() for name, v in zip(network.inputs, values, strict=True)})
        except Exception as error:
            raise BundleError(f"does not run at another size ({_line(error)})", source=path.name) from error
        for name, theirs, ours in zip(network.outputs, found, expected, strict=True):
            reference = ours.numpy()
            deviation = float(np.abs(theirs - reference).max() / max(float(np.abs(reference).max()), 1e-12))
            worst = max(worst, deviation)
            if not deviation <= tolerance:  # also if it is not a number
                problem = f"{name} deviates from PyTorch by {deviation:.2g} of its scale (batch {batch}, {length} long)"
                raise BundleError(problem, source=path.name, remedy="this network cannot be used with onnxruntime")
    return worst


def open_session(path: str | Path, threads: int = 0) -> Any:
    """An onnxruntime session on the CPU; ``threads`` 0 leaves their number to it.

    Raises:
        DependencyError: onnxruntime is not installed.
        BundleError: the file is missing or damaged.
    """
    _require("onnxruntime")
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    try:
        return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # its exceptions have no common class
        raise BundleError(
            f"cannot be opened ({_line(error)})", source=path, remedy="export the bundle again"
        ) from error


def graphs_of(bundle: Bundle) -> dict[str, dict[str, Any]]:
    """Graph → role, inputs, outputs and deviation, as ``onnx/onnx.yaml`` lists them.

    Raises:
        BundleError: the bundle holds no ONNX.
    """
    if "onnx/onnx.yaml" not in bundle.info.files:
        remedy = "crossmodal models export FOLDER --format onnx --from BUNDLE"
        raise BundleError("holds no ONNX", source=bundle.folder, remedy=remedy)
    graphs: dict[str, dict[str, Any]] = load_yaml(bundle.file("onnx/onnx.yaml"))["graphs"]
    return graphs


def _list_files(folder: Path, names: list[str]) -> None:
    """Add files to a bundle's list."""
    listing = load_yaml(folder / "bundle.yaml")
    assert listing["format"] == FORMAT
    files = dict(listing["files"])
    for name in names:
        files[name] = {"sha256": sha256(folder / name), "bytes": (folder / name).stat().st_size}
    save_yaml({**listing, "files": files}, folder / "bundle.yaml")


def _require(*packages: str) -> None:
    import importlib.util

    for package in packages or ("onnx", "onnxruntime"):
        if importlib.util.find_spec(package) is None:
            raise DependencyError("is not installed", source=package, remedy=INSTALL)


def _line(error: BaseException) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__
