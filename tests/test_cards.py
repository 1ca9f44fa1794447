"""Card and README quote measured results, on the networks that ship; what needs no data is measured again here."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest

from crossmodal.bundle import Bundle, starter_folder
from crossmodal.errors import DataError
from crossmodal.evaluation import cards
from crossmodal.evaluation.figures import Figure
from crossmodal.evaluation.report import Report, read_report
from crossmodal.recipes.starter.cards import Cards, replace_card

ROOT = Path(__file__).parents[1]
STARTER = Cards(ROOT / "recipes" / "starter", ROOT / "README.md")
CARD = (STARTER.folder / "card.md").read_text(encoding="utf-8")
REMEDY = "run `make cards`, with MEASURE=1 DATA=DIR if networks changed"


def _rows(place: str) -> list[list[str]]:
    block = re.search(rf"<!-- figures: {place} -->\n(.*?)<!-- end -->", CARD, flags=re.S)
    assert block, place
    lines = [line for line in block[1].splitlines() if line.startswith("|")][2:]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


# ------------------------------------------------------------------------------------------- what ships


def test_card_and_readme_are_current() -> None:
    for file, text in STARTER.filled().items():
        assert file.read_text(encoding="utf-8") == text, f"{file.name}: {REMEDY}"
    assert (starter_folder() / "README.md").read_text(encoding="utf-8") == CARD, REMEDY


def test_figures_are_of_the_networks_that_ship() -> None:
    assert STARTER.results()
    assert STARTER.stale() == {}, REMEDY


def test_every_saved_figure_has_what_it_needs() -> None:
    for name, report in STARTER.results().items():
        assert report.command.startswith("crossmodal "), name
        assert report.figures, name
        assert all(f.n > 0 and f.low <= f.value <= f.high for f in report.figures if f.value == f.value), name
        text = STARTER.file(name).read_text(encoding="utf-8")
        assert not re.search(r'"[^"]*(?:^|[ "])/\w', text), f"{name} holds a path of the machine that measured it"


def test_table_of_networks_against_the_networks() -> None:
    """Kinds, spaces, parameters and sizes by loading each network and reading each file, not by the bundle's list."""
    from crossmodal.bundle import space_of
    from crossmodal.models import classes

    bundle = Bundle.open()
    bundle.verify()  # every file and every external weight has the checksum that the bundle lists
    rows = {row[0]: row for row in _rows("modules")}
    total = stored = 0
    for role, entry in bundle.info.modules.items():
        module = bundle.load(role)
        _, kind, parameters, spaces, size, _, words = rows.pop(role)
        assert isinstance(module, classes(kind)[0])
        count = sum(p.numel() for p in module.parameters())
        assert int(parameters.replace(",", "")) == count, role
        assert spaces.split(" → ") == [space_of(module, f"{side}_space") or "–" for side in ("input", "output")], role
        files = [starter_folder() / f"{role}{suffix}" for suffix in (".yaml", ".safetensors")]
        on_disk = sum(file.stat().st_size for file in files if file.is_file())
        assert size == (f"{on_disk / 1e6:.2f}" if on_disk else f"in `{entry.package}`")
        assert words
        total, stored = total + count, stored + on_disk
    assert rows.pop("all")[2:5] == [f"{total:,}", "", f"{stored / 1e6:.2f}"]
    assert rows == {}


def test_self_check_gives_the_figures_of_the_card_again() -> None:
    from crossmodal.evaluation.selfcheck import measure
    from crossmodal.face2speech import Face2Speech

    saved = STARTER.results()["selfcheck"].figures
    again = {f.name: f for f in measure(Face2Speech.from_pretrained(device="cpu")).figures}
    assert set(again) == {f.name for f in saved}
    for figure in saved:
        one_case = 1.01 / figure.n if "finds its own" in figure.name else 0.01
        assert again[figure.name].value == pytest.approx(figure.value, abs=one_case), figure.name
        assert again[figure.name].reference == pytest.approx(figure.reference, abs=0.01), figure.name
        assert figure.line() in CARD


# ------------------------------------------------------------------------------------------ the machinery


def test_places_are_filled_and_others_left() -> None:
    text = "a\n<!-- figures: one -->\nold\n<!-- end -->\nb\n<!-- figures: two -->\nkept\n<!-- end -->\n"
    filled = cards.fill(text, {"one": "new\nlines"})
    assert filled == text.replace("old", "new\nlines")
    assert cards.fill(filled, {"one": "new\nlines"}) == filled
    assert cards.names(text) == ["one", "two"]
    for broken in ("<!-- figures: one -->\nopen", "<!-- figures: a -->\n<!-- figures: b -->\n<!-- end -->"):
        with pytest.raises(DataError, match="not closed"):
            cards.fill(broken, {})


@pytest.mark.parametrize(
    ("value", "decimals", "text"),
    [(0.974, 2, ".97"), (1.0, 2, "1.00"), (-0.5, 1, "-.5"), (5.212, 1, "5.2"), (float("nan"), 2, "–"), (0.0, 2, ".00")],
)
def test_numbers_are_short(value: float, decimals: int, text: str) -> None:
    assert cards.short(value, decimals) == text


def test_chosen_figures_in_the_words_asked_for() -> None:
    figures = [Figure("g", 0.974, 0.91, 1.0, 68, 0.5, "chance"), Figure("m", 5.2, 5.2, 5.2, 9, 8.1, "b", chance=9.9)]
    rows = [cards.Row("gender", "r", "g"), cards.Row("dB", "r", "m", "strangers", 1)]
    table = cards.chosen_figures("what", rows, {"r": Report("R", figures)})
    assert table.splitlines()[2:] == [
        "| gender | .97 [.91, 1.00] | 68 | chance .50 |",
        "| dB | 5.2 | 9 | strangers 8.1, chance 9.9 |",
    ]
    assert cards.chosen_figures("what", rows, {}) is None
    with pytest.raises(DataError, match="no figure 'x'"):
        cards.chosen_figures("what", [cards.Row("x", "r", "x")], {"r": Report("R")})


def test_a_changed_figure_or_network_is_noticed(tmp_path: Path) -> None:
    folder = tmp_path / "starter"
    shutil.copytree(STARTER.folder, folder)
    shutil.copyfile(ROOT / "README.md", tmp_path / "README.md")
    bundle = Path(shutil.copytree(starter_folder(), tmp_path / "bundle"))
    copy = Cards(folder, tmp_path / "README.md", bundle)
    copy.write()
    assert copy.write() == []
    assert "face-decoder" not in copy.stale().get("faces", [])
    content = json.loads(copy.file("faces").read_text())
    content["figures"][0]["value"] = 0.1234
    content["bundle"]["modules"]["face-decoder"] = "0" * 12
    copy.keep("faces", content)
    assert "face-decoder" in copy.stale()["faces"]
    before = {p.name: p.read_bytes() for p in bundle.iterdir() if p.is_file()}
    assert copy.write() == [folder / "card.md", bundle / "README.md"]
    assert "0.123" in (folder / "card.md").read_text()
    changed = [p.name for p in bundle.iterdir() if p.is_file() and p.read_bytes() != before[p.name]]
    assert sorted(changed) == ["README.md", "bundle.yaml"]
    Bundle.open(bundle).verify()
    assert read_report(copy.file("faces")).figures[0].value == 0.1234


def test_replacing_a_card_keeps_the_rest(tmp_path: Path) -> None:
    bundle = Path(shutil.copytree(starter_folder(), tmp_path / "bundle"))
    old = Bundle.open(bundle).info
    replace_card(bundle, "# another\n")
    new = Bundle.open(bundle)
    assert new.file("README.md").read_text() == "# another\n"
    assert (new.info.name, new.info.version, new.info.licence) == (old.name, old.version, old.licence)
    assert new.info.modules == old.modules
    assert {k: v for k, v in new.info.files.items() if k != "README.md"} == {
        k: v for k, v in old.files.items() if k != "README.md"
    }


def test_measuring_keeps_what_a_command_prints(tmp_path: Path) -> None:
    folder = tmp_path / "starter"
    (folder / "figures").mkdir(parents=True)
    path = tmp_path / "saved.json"
    path.write_text(json.dumps(Report("R", [Figure("g", 1, 1, 1, 3)], command="x").as_dict()))
    (folder / "figures" / "cards.yaml").write_text(
        "modules: {}\ntables: {}\n"
        "measurements:\n  m: {command: evaluate report NONE -o DIR}\n  v: {command: --nothing}\n"
    )
    starter = Cards(folder)
    with pytest.raises(DataError, match="m: needs the data folder"):
        starter.measure("m", None)
    with pytest.raises(DataError, match="v: `crossmodal --nothing` failed"):
        starter.measure("v", None)
    starter.keep("m", json.loads(path.read_text()))
    assert starter.results()["m"].command == "crossmodal evaluate report NONE -o DIR"
