"""Recipes: every ``debug.yaml`` trains and its result loads; every other recipe's keys are known; what is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from crossmodal.bundle import Bundle
from crossmodal.cli.app import app
from crossmodal.config import load_yaml, save_yaml
from crossmodal.errors import ConfigError, CrossmodalError, DataError
from crossmodal.evaluation.faces import HELD_OUT
from crossmodal.face2speech import Face2Speech
from crossmodal.recipes.starter import build
from crossmodal.speech2face import Speech2Face
from crossmodal.training.checkpoints import find
from crossmodal.training.logging import read_log
from crossmodal.training.recipe import find_recipe, load_recipe, packaged_recipes, parse_settings, train
from tests.debug_bundle import write_debug_bundle
from tests.generated import drawn_face, sung_voice
from tests.toy_task import ToyConfig

SHELF = Path(__file__).resolve().parents[1] / "recipes"
DEBUG = sorted(p.relative_to(SHELF).as_posix() for p in SHELF.glob("*/debug*.yaml"))
OTHERS = sorted(p.relative_to(SHELF).as_posix() for p in SHELF.glob("*/*.yaml") if not p.name.startswith("debug"))

TOY = {
    "about": "A toy.",
    "task": "tests.toy_task:ToyTask",
    "config": {"width": 4},
    "trainer": {"steps": 4, "batch_size": 8, "validate_every": 2, "log_every": 1},
}


@pytest.fixture
def toy(tmp_path: Path) -> Path:
    """A recipe of the toy task."""
    path = tmp_path / "toy.yaml"
    save_yaml(TOY, path)
    return path


def fails(error: type[CrossmodalError], *arguments: object) -> str:
    """Run ``crossmodal train``; it has to end in one line, with exit code 1 and that error. Returns the line."""
    result = CliRunner().invoke(app, ["train", *map(str, arguments)])
    assert result.exit_code == 1, result.output
    line = result.output.strip().splitlines()[-1]
    assert line.startswith("error: ")
    assert "Traceback" not in result.output
    return line


def _take_both_journeys(folder: Path) -> None:
    """What was trained draws a face and speaks, beside debug networks in the other roles."""
    voice, photo = sung_voice(2.0, 140.0, seed=0), drawn_face(256, seed=0)
    s2f = Speech2Face.from_pretrained(folder, device="cpu")
    for route in ("embedding", "spectrogram"):
        assert np.asarray(s2f(voice, sample_rate=16_000, route=route).image).std() > 0
    waveform = Face2Speech.from_pretrained(folder, device="cpu")(photo, "Hello.").waveform
    assert len(waveform) > 1000
    assert np.isfinite(waveform).all()


# -------------------------------------------------------------------------------------------------- the shelf itself


@pytest.mark.parametrize("name", DEBUG)
def test_debug_recipe_trains_and_its_result_loads(name: str, tmp_path: Path) -> None:
    settings = {"trainer": {"steps": 3, "minutes": 0.0, "validate_every": 2, "save_every": 2, "log_every": 1}}
    recipe = load_recipe(str(SHELF / name), settings, out=tmp_path / "run")
    assert recipe.about
    result, exported = train(recipe, tmp_path / "run")
    assert result.step == 3
    assert all(torch.tensor(e["loss"]).isfinite() for e in read_log(tmp_path / "run"))
    bundle = Bundle.open(exported)
    assert bundle.info.modules
    assert bundle.protocol() == find(result.checkpoint).state.get(
        "protocol", {}
    )  # whom it was trained on, if that is known
    for role in bundle.info.modules:
        module = bundle.load(role)
        assert not module.training
        assert all(p.isfinite().all() for p in module.parameters())
    _take_both_journeys(write_debug_bundle(tmp_path / "bundle", trained=bundle))
    again, _ = train(load_recipe(str(SHELF / name), settings, out=tmp_path / "run"), tmp_path / "run")
    assert again.step == 3  # nothing left to do


@pytest.mark.parametrize(("name", "key"), [("face_decoder", "held_out"), ("feature_head", "held_out_faces")])
def test_the_starter_holds_out_whom_the_evaluation_measures(name: str, key: str) -> None:
    assert set(load_yaml(SHELF / "starter" / f"{name}.yaml")["config"][key]) == set(HELD_OUT)


@pytest.mark.parametrize("spectrogram", [False, True])
def test_the_starter_is_trained_on_what_was_prepared(spectrogram: bool) -> None:
    """Recipes that read a folder of pairs get the one that a step before wrote; the voice encoder, when asked for."""
    written, trained = set(), []
    for step in build.steps(Path("DIR"), Path("WORK"), spectrogram=spectrogram):
        if step.name.startswith("train "):
            trained.append(step.name.removeprefix("train "))
            prepared = step.command[step.command.index("--data") + 1]
            folder = load_yaml(SHELF / "starter" / f"{trained[-1]}.yaml")["config"].get("data", "")
            assert Path(prepared) in written if folder.startswith("runs/") else prepared == "DIR", step.name
        written.add(step.done.parent)
    assert ("voice_encoder" in trained) == spectrogram


@pytest.mark.parametrize("name", OTHERS)
def test_every_key_of_every_recipe_is_known(name: str, tmp_path: Path) -> None:
    recipe = load_recipe(str(SHELF / name), data=tmp_path)
    assert recipe.about
    assert recipe.trainer.steps or recipe.trainer.minutes


def test_every_recipe_folder_has_a_readme_and_is_on_the_shelf_list() -> None:
    listed = (SHELF / "README.md").read_text(encoding="utf-8")
    for folder in {Path(name).parent.name for name in DEBUG + OTHERS}:
        assert (SHELF / folder / "README.md").is_file(), folder
        assert f"[{folder}]({folder}/README.md)" in listed


def test_packaged_recipes_are_found_by_name() -> None:
    for name in packaged_recipes():
        assert find_recipe(name).is_file()


# ------------------------------------------------------------------------------------------------- reading a recipe


def test_settings_are_overlaid(toy: Path) -> None:
    settings = parse_settings(["trainer.steps=7", "config.noise=1e-2", "trainer.optimiser.betas=[0.5, 0.9]"])
    recipe = load_recipe(str(toy), settings)
    assert recipe.trainer.steps == 7
    assert recipe.trainer.batch_size == 8
    assert recipe.trainer.optimiser.betas == (0.5, 0.9)
    assert recipe.config == ToyConfig(width=4, noise=0.01)


def test_recipe_extends_another(toy: Path) -> None:
    child = toy.with_name("child.yaml")
    save_yaml({"extends": "toy.yaml", "config": {"dropout": 0.0}}, child)
    recipe = load_recipe(str(child))
    assert recipe.config == ToyConfig(width=4, dropout=0.0)
    save_yaml({"extends": "child.yaml"}, toy)
    with pytest.raises(ConfigError, match="extends itself"):
        load_recipe(str(child))


def test_same_seed_gives_the_same_start(toy: Path) -> None:
    first, second = load_recipe(str(toy)).task(), load_recipe(str(toy)).task()
    other = load_recipe(str(toy), {"trainer": {"seed": 1}}).task()
    assert torch.equal(first.modules["net"][0].weight, second.modules["net"][0].weight)
    assert not torch.equal(first.modules["net"][0].weight, other.modules["net"][0].weight)


def test_data_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CROSSMODAL_DATA", raising=False)
    path = tmp_path / "r.yaml"
    save_yaml({**TOY, "task": "vocoder", "config": {"features": "${data}/features"}}, path)
    assert load_recipe(str(path), data=tmp_path).config.features == tmp_path / "features"
    with pytest.raises(DataError, match="give it by --data"):
        load_recipe(str(path))
    with pytest.raises(DataError, match="no such folder"):
        load_recipe(str(path), data=tmp_path / "missing")
    monkeypatch.setenv("CROSSMODAL_DATA", str(tmp_path / "other"))
    assert load_recipe(str(path)).config.features == tmp_path / "other" / "features"


# -------------------------------------------------------------------------------------------------- the command


def test_command_trains_and_goes_on(toy: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    first = CliRunner().invoke(app, ["train", str(toy), "--out", str(out), "--steps", "2"])
    assert first.exit_code == 0, first.output
    assert "stopped at step 2 (steps)" in first.output
    second = CliRunner().invoke(app, ["train", str(toy), "--out", str(out), "--json"])
    assert second.exit_code == 0, second.output
    assert '"step": 4' in second.output
    assert [e["step"] for e in read_log(out)] == [1, 2, 3, 4]


def test_command_prints_a_table_of_throughput(toy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from crossmodal.training import benchmark

    measure = benchmark.measure
    monkeypatch.setattr(
        benchmark, "measure", lambda recipe, sizes: measure(recipe, sizes, compiled=(False,), seconds=0.05)
    )
    result = CliRunner().invoke(app, ["train", str(toy), "--benchmark", "--batch-sizes", "8,64"])
    assert result.exit_code == 0, result.output
    rows = [line.split("|")[1:-1] for line in result.output.splitlines() if line.startswith(("| 8", "| 64"))]
    assert [(int(r[0]), r[1].strip()) for r in rows] == [(8, "fp32"), (8, "bf16"), (64, "fp32"), (64, "bf16")]
    assert all(float(r[4]) == pytest.approx(float(r[0]) * float(r[3]), rel=0.01) for r in rows)


def test_operations_are_those_of_the_formula(toy: Path) -> None:
    """Two layers (4 → 4 → 1), batch 8: forward, and twice that backward but for the input's gradient."""
    from crossmodal.training import benchmark
    from crossmodal.training.core import make_fabric

    recipe = load_recipe(str(toy))
    fabric = make_fabric(recipe.trainer)
    fabric.launch()
    forward = 2 * 8 * (4 * 4 + 4 * 1)
    assert benchmark._count(benchmark._Step(recipe, fabric)) == 3 * forward - 2 * 8 * 4 * 4


@pytest.mark.parametrize(
    ("setting", "part"),
    [
        ("trainer.stepz=3", "unknown key 'stepz': did you mean 'steps'?"),
        ("config.widht=3", "unknown key 'widht': did you mean 'width'?"),
        ("trainr.steps=3", "unknown key 'trainr': did you mean 'trainer'?"),
        ("trainer.optimiser.name=adm", "'adm' is not one of adam, adamw, sgd"),
        ("trainer.batch_size=eight", "expected int, got 'eight'"),
        ("trainer.batch_size=400", "batch_size 400 is larger than the 40 training examples"),
        ("task=toy", "no task called 'toy'"),
        ("task=tests.toy_task:Missing", "cannot be imported"),
        ("trainer.steps", "is not a setting: write it as trainer.steps=100"),
        ("trainer.start_from=nowhere", "holds no checkpoint"),
    ],
)
def test_bad_recipe_is_one_line_and_writes_nothing(setting: str, part: str, toy: Path, tmp_path: Path) -> None:
    assert part in fails(ConfigError, toy, "--set", setting, "--out", tmp_path / "run")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["toy.yaml"]


def test_unknown_recipe_and_foreign_checkpoint(toy: Path, tmp_path: Path) -> None:
    assert "there is no such recipe" in fails(ConfigError, "no-such-recipe")
    out = tmp_path / "run"
    assert CliRunner().invoke(app, ["train", str(toy), "--out", str(out)]).exit_code == 0
    foreign = fails(CrossmodalError, toy, "--out", out, "--set", "task=tests.toy_task:AdversarialToyTask")
    assert "is a checkpoint of the task 'toy', not of 'toy-adversarial'" in foreign
