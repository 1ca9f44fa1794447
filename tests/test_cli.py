"""The command line: results, exit codes, one-line errors, and a fast start."""

from __future__ import annotations

import errno
import importlib
import io
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from crossmodal import __version__, audio
from tests.debug_bundle import write_debug_bundle
from tests.generated import drawn_face, sung_voice

COMMANDS = [
    "face",
    "speak",
    "reface",
    "embed",
    "match",
    "tour",
    "detect",
    "models",
    "doctor",
    "bench",
    "train",
    "prepare",
    "evaluate",
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cli")
    write_debug_bundle(folder / "bundle")
    audio.save_wav(folder / "voice.wav", sung_voice(3.0, 120.0, seed=0), 16_000)
    drawn_face(320, seed=0).save(folder / "face.png")
    return folder


@pytest.fixture
def run(folder, tmp_path, monkeypatch):
    """Run a command in an empty folder → result; ``b`` appends the debug bundle."""
    from crossmodal.cli.app import app

    monkeypatch.chdir(tmp_path)
    for name in ("voice.wav", "face.png"):
        (tmp_path / name).write_bytes((folder / name).read_bytes())

    def call(*arguments: str, bundle: bool = True, stdin: bytes | None = None):
        extra = ["--bundle", str(folder / "bundle"), "--device", "cpu"] if bundle else []
        return CliRunner().invoke(app, [*arguments, *extra], input=stdin)

    return call


def test_every_command_has_help(run):
    for command in COMMANDS:
        result = run(command, "--help", bundle=False)
        assert result.exit_code == 0, (command, result.output)
        assert len(result.output) > 200, command
    assert run("--version", bundle=False).output.strip() == f"crossmodal {__version__}"


def test_face_writes_a_picture(run):
    result = run("face", "voice.wav", "-o", "f.png")
    assert result.exit_code == 0, result.output
    with Image.open("f.png") as picture:
        assert picture.mode == "RGB"


def test_no_word_of_the_help_is_lost_to_markup():
    """Rich takes ``[words]`` in a help text for a style and prints nothing of it."""
    import typer

    from crossmodal.cli.app import app

    def texts(command, names):
        yield names, command.help or ""
        for parameter in command.params:
            yield f"{names} {parameter.name}", getattr(parameter, "help", None) or ""
        for name in command.list_commands(typer.Context(command)) if hasattr(command, "commands") else ():
            yield from texts(command.get_command(typer.Context(command), name), f"{names} {name}")

    found = list(texts(typer.main.get_command(app), "crossmodal"))
    assert len(found) > 250
    assert [names for names, text in found if re.search(r"(?<!\\)\[(?!/?bold\])[a-z/@#]", text)] == []


def test_several_faces_come_with_a_contact_sheet(run):
    result = run("face", "voice.wav", "voice.wav", "-n", "2", "-o", "f.png", "--json")
    assert result.exit_code == 0, result.output
    content = json.loads(result.stdout)
    assert sorted(content["outputs"]) == ["f-1.png", "f-2.png", "f-3.png", "f-4.png", "f.png"]
    assert all(Path(name).is_file() for name in content["outputs"])
    assert len(content["faces"]) == 4
    assert len(content["faces"][0]["feature"]) == 128


def test_speak_with_a_face_and_with_a_voice(run):
    assert run("speak", "Hello.", "--face", "face.png", "-o", "a.wav", "--no-watermark").exit_code == 0
    Path("text.txt").write_text("Hello from a file.")
    result = run("speak", "text.txt", "--voice", "voice.wav", "-o", "b.wav", "--no-watermark", "--json")
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["text"] == "Hello from a file."
    result = run("speak", "-", "--voice", "voice.wav", "-o", "c.wav", "--no-watermark", stdin=b"Good day.")
    assert result.exit_code == 0, result.output
    assert len(audio.load("c.wav")) > 1600


def test_standard_output_is_the_file(run):
    result = run("reface", "face.png", "-o", "-", "--quiet")
    assert result.exit_code == 0
    assert result.stdout_bytes.startswith(b"\x89PNG")


def test_standard_input_is_named_in_errors(run):
    for arguments in (("face", "-"), ("reface", "-"), ("speak", "-", "--face", "face.png")):
        result = run(*arguments, stdin=b"neither a sound nor a picture \xff")
        assert result.exit_code == 1
        assert "error: standard input: " in result.stderr


def test_embed_and_match(run):
    result = run("embed", "voice.wav", "face.png", "-o", "e.npz", "--json")
    assert result.exit_code == 0, result.output
    stored = np.load("e.npz")
    assert stored["kinds"].tolist() == ["voice", "face"]
    assert stored["embeddings"].shape == (2, 256)
    result = run("match", "voice.wav", "voice.wav", "--json")
    assert json.loads(result.stdout)["cosine"] == pytest.approx(1.0, abs=1e-4)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("face", "absent.wav"), "absent.wav"),
        (("face", "text.wav"), "text.wav"),
        (("face", "face.png"), "face.png"),
        (("speak", "", "--face", "face.png"), "empty"),
        (("speak", "?!", "--face", "face.png"), ""),
        (("speak", "Hi.", "--face", "lawn.png"), "no face found in lawn.png (200×120)"),
        (("speak", "Hi.", "--face", "voice.wav"), "voice.wav"),
        (("speak", "Hi.", "--face", "face.png", "--face-index", "7"), "face.png"),
        (("reface", "face.png", "-o", "nowhere/x.png"), "nowhere"),
        (("reface", "face.png", "-o", "x.bmp"), "unknown format '.bmp'"),
        (("reface", "face.png", "-o", "."), "is a folder"),
        (("face", "voice.wav", "-o", ""), "--out: no file is named"),
        (("face", ""), "error: '': does not exist"),
        (("reface", ""), "error: '': does not exist"),
        (("speak", "letter.txt", "--face", "face.png"), "letter.txt: does not exist"),
        (("speak", "latin.txt", "--face", "face.png"), "latin.txt: is not UTF-8 text"),
        (("speak", "./", "--face", "face.png"), "./: is a folder"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_1(run, arguments, message):
    Path("text.wav").write_text("this is a text")
    Path("latin.txt").write_bytes(b"caf\xe9")
    Image.new("RGB", (200, 120), (10, 120, 10)).save("lawn.png")
    result = run(*arguments)
    assert result.exit_code == 1, result.output
    errors = [line for line in result.stderr.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1, result.stderr
    assert message in errors[0]


@pytest.mark.parametrize(
    "arguments",
    [
        ("speak", "Hi."),
        ("speak", "Hi.", "--face", "face.png", "--voice", "voice.wav"),
        ("speak", "Hi.", "--face", "face.png", "--speed", "9"),
        ("face",),
        ("face", "voice.wav", "-n", "0"),
        ("face", "voice.wav", "--route", "x"),
        ("nonsense",),
        ("speak", "-", "--face", "-"),
        ("match", "-", "-"),
        ("embed", "-", "face.png", "-"),
        ("face", "-", "-"),
        ("face", "voice.wav", "-o", "-", "--json"),
        ("speak", "Hi.", "--voice", "voice.wav", "--face-index", "0"),
    ],
)
def test_wrong_usage_is_exit_code_2(run, arguments):
    assert run(*arguments).exit_code == 2


@pytest.mark.parametrize("device", ["meta", "mps", "cuda:first", "cpu:", ""])
def test_a_device_that_is_none_is_named(run, device):
    result = run("face", "voice.wav", "--device", device, bundle=False)
    assert result.exit_code == 1
    assert f"error: unknown device '{device}': use auto, cpu, cuda or cuda:N" in result.stderr


def test_embeddings_to_standard_output(run):
    result = run("embed", "voice.wav", "-o", "-", "--quiet")
    assert result.exit_code == 0
    assert np.load(io.BytesIO(result.stdout_bytes))["embeddings"].shape == (1, 256)
    assert not Path("-").exists()


def test_the_options_that_messages_name_are_there(run):
    Image.new("RGB", (200, 120), (10, 120, 10)).save("lawn.png")
    for command in (("embed", "lawn.png"), ("match", "lawn.png", "voice.wav"), ("reface", "lawn.png")):
        assert "pass --no-detect" in run(*command).stderr
        assert run(*command, "--no-detect").exit_code == 0, command


@pytest.mark.parametrize(
    ("arguments", "key"),
    [
        (("train", "--list"), "recipes"),
        (("prepare", "list"), "sets"),
        (("models", "info", "--card"), "card"),
        (("models", "list"), "bundles"),
        (("doctor",), "checks"),
    ],
)
def test_lists_are_machine_readable(run, arguments, key):
    result = run(*arguments, "--json", bundle=False)
    assert result.exit_code == 0, result.output
    assert len(json.loads(result.stdout)[key]) >= 1


def test_doctor_notices_what_is_missing_and_what_does_not_load(run, monkeypatch):
    from crossmodal.cli import doctor

    found, load = importlib.util.find_spec, importlib.import_module

    def broken(name: str, package: str | None = None) -> object:
        if name == "torchaudio":
            raise OSError("undefined symbol: torch_exception_get_what")
        return load(name, package)

    monkeypatch.setattr(doctor.importlib.util, "find_spec", lambda name, *a: None if name == "av" else found(name, *a))
    monkeypatch.setattr(importlib, "import_module", broken)
    result = run("doctor", bundle=False)
    assert result.exit_code == 1
    assert "MISSING   av " in result.stdout
    line = next(line for line in result.stdout.splitlines() if " torchaudio " in line)
    assert line.startswith("BROKEN")
    assert "undefined symbol: torch_exception_get_what): pip install --force-reinstall torchaudio" in line


def test_an_interrupted_training_says_so_in_its_exit_code(run, monkeypatch):
    from crossmodal.training import recipe
    from crossmodal.training.core import Result

    for reason, code in (("interrupted", 130), ("steps", 0)):
        ended = Result(step=3, reason=reason, best_loss=1.0, seconds=1.0, checkpoint=Path("c"))
        monkeypatch.setattr(recipe, "train", lambda *_, ended=ended, **__: (ended, Path("export")))
        result = run("train", "feature_head/debug", "--json", bundle=False)
        assert result.exit_code == code, result.output
        assert json.loads(result.stdout)["reason"] == reason


def test_what_the_system_refuses_is_one_line(run, monkeypatch):
    result = run("tour", "-o", "/proc/tour", "--voice", "voice.wav", "--photo", "face.png")
    assert result.exit_code == 1
    assert result.stderr.splitlines()[-1].startswith("error: /proc")

    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "mkdir", full)
    result = run("tour", "-o", "new", "--voice", "voice.wav", "--photo", "face.png")
    assert (result.exit_code, result.stderr.splitlines()[-1]) == (1, "error: No space left on device")


def test_a_tour_without_a_text_makes_nothing(run):
    result = run("tour", "-o", "t", "--voice", "voice.wav", "--photo", "face.png", "--text", "")
    assert (result.exit_code, result.stderr) == (1, "error: text: is empty: give at least one English word\n")
    assert not Path("t").exists()
    assert "face.png: is a file" in run("tour", "-o", "face.png").stderr


def test_models(run, folder):
    bundle = str(folder / "bundle")
    result = run("models", "info", bundle, "--json", bundle=False)
    assert result.exit_code == 0
    assert set(json.loads(result.stdout)["modules"]) >= {"face-decoder", "acoustic"}
    assert "Random weights" in run("models", "info", bundle, "--card", bundle=False).stdout
    assert run("models", "info", bundle, bundle=False).exit_code == 0
    assert run("models", "verify", bundle, bundle=False).exit_code == 0
    assert run("models", "export", "copy", "--from", bundle, bundle=False).exit_code == 0
    assert (Path("copy") / "bundle.yaml").is_file()
    result = run("models", "export", "copy", "--from", bundle, bundle=False)
    assert result.exit_code == 1
    assert "exists already" in result.stderr


def test_tour_is_one_self_contained_page(run):
    result = run("tour", "-o", "t", "--voice", "voice.wav", "--photo", "face.png", "--text", "Hello.")
    assert result.exit_code == 0, result.output
    page = Path("t/tour.html").read_text()
    assert page.count("data:image/png") >= 6
    assert page.count("data:audio/wav") >= 2
    assert "src='http" not in page
    assert {"face-from-voice.png", "speech-from-face.wav"} <= {p.name for p in Path("t").iterdir()}


def test_every_file_of_commands_is_listed_under_the_commands_it_holds():
    import typer

    from crossmodal.cli import app, evaluate, models, models_import

    groups = (app._App, evaluate._Evaluate, models._Models, models_import._Import)
    listed = {(file, name) for group in groups for name, file in group.files.items()}
    held = set()
    for path in Path(app.__file__).parent.glob("*.py"):
        module = importlib.import_module(f"crossmodal.cli.{path.stem}")
        if hasattr(module, "register"):
            holder = typer.Typer()
            holder.callback()(lambda: None)
            module.register(holder)
            held |= {(path.stem, name) for name in typer.main.get_group(holder).commands}
    assert listed == held


@pytest.mark.parametrize(("arguments", "own"), [("--version", []), ("match --help", ["embed"]), ("nonsense", [])])
def test_a_command_imports_only_its_own_file(arguments, own):
    code = (
        f"import sys; sys.argv = ['crossmodal', *{arguments.split()!r}]\n"
        "from crossmodal.cli import main\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "shared = {'app', 'common', 'lazy'}\n"
        "loaded = {m.rpartition('.')[2] for m in sys.modules if m.startswith('crossmodal.cli.')}\n"
        "print(); print(sorted(loaded - shared))"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert out.splitlines()[-1] == str(own)


def test_a_misspelt_command_is_told_its_neighbour(run):
    result = run("evaluate", "verificaton", bundle=False)
    assert result.exit_code == 2
    assert "verification" in result.stderr
    assert "'speak'" in run("speek", bundle=False).stderr


def test_a_terminal_without_unicode_shows_what_it_can(folder):
    command = [sys.executable, "-c", "from crossmodal.cli import main; main()", "models", "info", folder / "bundle"]
    environment = {**os.environ, "PYTHONIOENCODING": "ascii"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=120)
    assert (done.returncode, done.stderr) == (0, "")
    assert "speaker embedding ? face feature" in done.stdout


def test_start_imports_nothing_heavy():
    code = (
        "import sys, crossmodal; a = set(sys.modules)\n"
        "import crossmodal.cli.app; b = set(sys.modules)\n"
        "heavy = {'torch', 'librosa', 'transformers', 'TTS', 'pandas', 'scipy', 'PIL', 'numpy'}\n"
        "print(sorted(heavy & a), sorted(heavy & b))"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert out.strip() == "[] []"
