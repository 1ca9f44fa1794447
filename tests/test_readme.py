"""Everything the README shows works: its commands and its Python run on the starter bundle's own examples."""

from __future__ import annotations

import re
import shlex
import shutil
from pathlib import Path

import pytest
from PIL import Image
from typer.testing import CliRunner

from crossmodal.bundle import Bundle, starter_folder

README = Path(__file__).parents[1] / "README.md"
TEXT = README.read_text(encoding="utf-8")


def _blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", TEXT, flags=re.S | re.M)


def _commands(language: str) -> list[str]:
    lines = "\n".join(_blocks(language)).splitlines()
    return [line for line in lines if line.startswith("crossmodal ")]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The files the README talks about; commands run in order, as a reader would."""
    if not (starter_folder() / "bundle.yaml").is_file():
        pytest.fail("the starter bundle is missing from the package")
    folder = tmp_path_factory.mktemp("readme")
    starter = Bundle.open()
    shutil.copyfile(starter.file("examples/voice.wav"), folder / "voice.wav")
    with Image.open(starter.file("examples/face.png")) as photo:
        photo.convert("RGB").save(folder / "photo.jpg", quality=95)
    return folder


@pytest.mark.parametrize("command", _commands("bash"))
def test_command(command, folder, monkeypatch):
    from crossmodal.cli.app import app

    monkeypatch.chdir(folder)
    arguments = shlex.split(command, comments=True)[1:]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, (command, result.output, result.exception)
    for flag in ("-o", "--out"):
        if flag in arguments:
            assert (folder / arguments[arguments.index(flag) + 1]).exists()


def test_python(folder, monkeypatch):
    monkeypatch.chdir(folder)
    blocks = _blocks("python")
    assert blocks
    for block in blocks:
        exec(compile(block, str(README), "exec"), {})
    assert (folder / "cloned.wav").is_file()


@pytest.mark.parametrize("command", _commands(""))
def test_command_that_needs_data_exists(command):
    """Not run here, but every option it uses is one that the command has."""
    from crossmodal.cli.app import app

    words = shlex.split(command, comments=True)[1:]
    help_text = CliRunner().invoke(app, [words[0], "--help"], env={"COLUMNS": "300"}).output
    for option in (w for w in words[1:] if re.fullmatch(r"--?[a-z][a-z-]*", w)):
        assert option in help_text, (command, option)


def test_pictures_and_links_exist():
    for target in re.findall(r"\]\(([^)#]+)\)", TEXT):
        if not target.startswith("http"):
            assert (README.parent / target).exists(), target
