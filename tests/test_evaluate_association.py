"""Verification, matching and retrieval: against scikit-learn and loops, on constant encoders, on published lists."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score
from typer.testing import CliRunner

from crossmodal.bundle import Bundle
from crossmodal.data.protocols import Clip, MatchingTrial, People, VerificationTrial
from crossmodal.errors import AudioError, DataError
from crossmodal.evaluation import association, lists
from crossmodal.evaluation.embed_media import embed_media
from crossmodal.evaluation.embeddings import Embeddings, read_embeddings, spellings, unit_vectors
from crossmodal.evaluation.figures import bootstrap
from crossmodal.evaluation.metrics import PairScores
from crossmodal.evaluation.oracles import Known
from crossmodal.evaluation.retrieval import by_cosine, draw_galleries, retrieval

PEOPLE, EACH = 12, 3
Run = Callable[..., Any]


class World:
    """People with voices and faces, their embeddings, lists and table, in a folder."""

    def __init__(self, folder: Path) -> None:
        rng = np.random.default_rng(0)
        self.folder = folder
        self.voices = [(f"v/{p}-{k}.wav", f"p{p}") for p in range(PEOPLE) for k in range(EACH)]
        self.faces = [(f"f/{p}-{k}.jpg", f"p{p}") for p in range(PEOPLE) for k in range(EACH)]
        centre = rng.normal(size=(PEOPLE, 8))
        noisy = [centre[int(who[1:])] + rng.normal(size=8) for _, who in (*self.voices, *self.faces)]
        self.vectors = dict(zip([path for path, _ in (*self.voices, *self.faces)], noisy))
        self.gender = {f"p{p}": "fm"[p % 2] for p in range(PEOPLE)}
        self.nation = {f"p{p}": ("Peru", "Chad")[p // 6] for p in range(PEOPLE)}
        self.write("meta.csv", [("id", "gender", "nationality", "age")], self.meta_rows())
        self.pairs = []
        for voice, who in self.voices:
            same, other = rng.integers(EACH), rng.integers(PEOPLE * EACH)
            while self.faces[other][1] == who:
                other = rng.integers(PEOPLE * EACH)
            for face, whose in ((f"f/{who[1:]}-{same}.jpg", who), self.faces[other]):
                self.pairs.append((voice, face, int(whose == who), who, whose))
        self.write("pairs.csv", [("voice", "face", "label", "voice_id", "face_id")], self.pairs)
        self.write("items.csv", [("path", "id", "kind")], [(p, w, "voice") for p, w in self.voices], self.face_items())
        self.save("e.npz", self.vectors)
        self.save("constant.npz", {path: np.array([0.3, -0.1, 0.7]) for path in self.vectors})

    def meta_rows(self) -> list[tuple]:
        return [(who, self.gender[who], self.nation[who], 20 + 3 * k) for k, who in enumerate(sorted(self.gender))]

    def face_items(self) -> list[tuple]:
        return [(p, w, "face") for p, w in self.faces]

    def write(self, name: str, *parts: list[tuple]) -> Path:
        with open(self.folder / name, "w", newline="") as file:
            csv.writer(file).writerows([row for part in parts for row in part])
        return self.folder / name

    def save(self, name: str, vectors: dict[str, np.ndarray], **more: Any) -> Path:
        arrays = {"paths": np.array(list(vectors)), "embeddings": np.stack(list(vectors.values())), **more}
        np.savez(self.folder / name, **arrays)
        return self.folder / name

    def cosine(self, one: str, other: str) -> float:
        a, b = self.vectors[one], self.vectors[other]
        return float(a @ b / np.linalg.norm(a) / np.linalg.norm(b))


@pytest.fixture(scope="module")
def shared_world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return World(tmp_path_factory.mktemp("world"))


@pytest.fixture
def world(shared_world: World, monkeypatch: pytest.MonkeyPatch) -> World:
    monkeypatch.chdir(shared_world.folder)
    monkeypatch.setattr(association, "DRAWS", 200)  # the intervals have a test of their own
    return shared_world


@pytest.fixture
def run() -> Run:
    from crossmodal.cli.app import app

    def call(*arguments: str, fails: int = 0) -> Any:
        result = CliRunner().invoke(app, ["evaluate", *arguments])
        assert result.exit_code == fails, result.output
        if "--json" in arguments and not fails:
            return json.loads(result.stdout, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
        return result.stderr if fails else result.stdout

    return call


def test_verification_is_scikit_learns_auc_of_cosines(world: World, run: Run) -> None:
    scores = np.array([world.cosine(voice, face) for voice, face, *_ in world.pairs])
    same = np.array([bool(label) for _, _, label, *_ in world.pairs])
    found = run("verification", "-l", "pairs.csv", "-e", "e.npz", "--meta", "meta.csv", "--json")
    assert found["auc"] == pytest.approx(roc_auc_score(same, scores), abs=1e-9)
    assert (found["n"], found["positives"], found["people"], found["chance"]) == (72, 36, PEOPLE, 0.5)
    assert found["ci95"]["auc"][0] < found["auc"] < found["ci95"]["auc"][1]
    alike = np.array([world.gender[a] == world.gender[b] for *_, a, b in world.pairs])
    assert found["oracle"]["auc"] == pytest.approx(roc_auc_score(same, alike))
    figures = {f["name"]: f for f in found["figures"]}
    compatriots = np.array([world.nation[a] == world.nation[b] for *_, a, b in world.pairs])
    for name, shared in (("gender (G)", alike), ("gender, nationality (GN)", alike & compatriots)):
        kept = same | shared
        figure = figures[f"AUC, same {name}"]
        assert figure["value"] == pytest.approx(roc_auc_score(same[kept], scores[kept]), abs=1e-9)
        assert (figure["n"], figure["reference"]) == (kept.sum(), 0.5)
    assert found["eer"] == PairScores(scores, same).measure()[1]
    assert "EER 0." in run("verification", "-l", "pairs.csv", "-e", "e.npz")


def test_matching_is_that_of_a_loop(world: World, run: Run) -> None:
    rng = np.random.default_rng(3)
    rows = []
    for voice, who in world.voices:
        wrong = [p for p in rng.permutation(PEOPLE) if f"p{p}" != who][:4]
        candidates = [f"f/{who[1:]}-0.jpg", *(f"f/{p}-{rng.integers(EACH)}.jpg" for p in wrong)]
        answer = int(rng.integers(5))
        candidates.insert(answer, candidates.pop(0))
        rows.append((voice, *candidates, answer + 1, who))
    names = ("probe", *(f"candidate_{k}" for k in range(1, 6)), "answer", "probe_id")
    world.write("trials.csv", [names], rows)
    found = run("matching", "-l", "trials.csv", "-e", "e.npz", "--json")
    for n in range(2, 6):
        right = []
        for probe, *candidates, answer, _ in rows:
            others = [c for k, c in enumerate(candidates) if k != answer - 1][: n - 1]
            right.append(all(world.cosine(probe, candidates[answer - 1]) > world.cosine(probe, c) for c in others))
        assert found["figures"][n - 2]["name"] == f"accuracy 1:{n}, v2f"
        assert found["figures"][n - 2]["value"] == pytest.approx(np.mean(right))
        assert found["figures"][n - 2]["chance"] == 1 / n
    assert (found["accuracy"], found["candidates"]) == (pytest.approx(np.mean(right)), 5)


@pytest.mark.parametrize("source", [("-e", "constant.npz"), ("--oracle", "gender", "--meta", "alike.csv")])
def test_a_constant_encoder_is_exactly_chance(world: World, run: Run, source: tuple[str, ...]) -> None:
    world.write("alike.csv", [("id", "gender")], [(f"p{k}", "f") for k in range(PEOPLE)])
    found = run("verification", "-l", "pairs.csv", *source, "--json")
    assert (found["auc"], found["eer"]) == (0.5, 0.5)
    found = run("matching", "-l", "items.csv", *source, "--trials", "50", "--json")
    for name, value in ((f["name"], f["value"]) for f in found["figures"]):
        if "same" not in name:
            assert value == 1 / int(name.split("1:")[1].split(",")[0])
    assert len(found["figures"]) >= 18
    found = run("retrieval", "-l", "items.csv", *source, "--per-person", "1", "--json")
    for direction in ("v2f", "f2v"):
        assert found[direction]["recall"]["1"] == 1 / PEOPLE
        assert found[direction]["recall"] == found[direction]["chance"]["recall"]
        assert found[direction]["map"] == pytest.approx(found[direction]["chance"]["map"])


def test_retrieval_is_that_of_a_loop(world: World, run: Run) -> None:
    found = run("retrieval", "-l", "items.csv", "-e", "e.npz", "--meta", "meta.csv", "--json")
    hits, precisions = [], []
    for voice, who in world.voices:
        ranked = sorted(world.faces, key=lambda item: -world.cosine(voice, item[0]))
        right = np.array([whose == who for _, whose in ranked])
        hits.append(right[:2].any())
        precisions.append(np.mean((np.cumsum(right) / np.arange(1, len(right) + 1))[right]))
    assert found["v2f"]["recall"]["2"] == pytest.approx(np.mean(hits))
    assert found["v2f"]["map"] == pytest.approx(np.mean(precisions))
    assert found["v2f"]["gallery"] == [PEOPLE * EACH]
    assert found["galleries"] == [{"people": PEOPLE, "voices": PEOPLE * EACH, "faces": PEOPLE * EACH}]
    assert found["v2f"]["oracle"]["map"] > found["v2f"]["chance"]["map"]
    found = run("retrieval", "-l", "pairs.csv", "-e", "e.npz", "--people", "5", "--per-person", "1", "--json")
    assert [g["people"] for g in found["galleries"]] == [5, 5]
    assert found["v2f"]["n"] == 10
    assert "2 disjoint galleries averaged" in run("retrieval", "-l", "items.csv", "-e", "e.npz", "--people", "6")


def test_intervals_are_those_of_drawing_people_one_by_one() -> None:
    rng = np.random.default_rng(0)
    clusters = rng.integers(15, size=200)
    same = rng.random(200) < 0.5
    scores = rng.normal(size=200) + same * 0.8 + rng.normal(size=15)[clusters] * 0.5
    pairs = [
        VerificationTrial(Clip(f"p{c}", "", "", "v"), Clip("", "", "", "f"), bool(s)) for c, s in zip(clusters, same)
    ]
    auc = association.verification(scores, pairs, Known()).figures[0]

    def wins(rows: np.ndarray) -> float:
        true, false = rows[rows[:, 1] > 0, 0], rows[rows[:, 1] == 0, 0]
        return float((true[:, None] > false).mean())

    rows = np.stack([scores, same], axis=1)
    low, high = bootstrap(rows, wins, clusters=clusters, draws=500)
    assert (auc.low, auc.high) == (pytest.approx(low, abs=0.015), pytest.approx(high, abs=0.015))


def test_large_galleries_come_in_blocks_and_equal_vectors_tie() -> None:
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(1300, 16))
    vectors[700:] = vectors[100:700]  # every second face is a copy
    paths = [f"{k}.jpg" for k in range(1300)]
    table = Embeddings(paths, unit_vectors(vectors, paths, "test"))
    blocks = list(table.cosine_blocks(np.arange(1300), np.arange(1300)))
    assert [len(block) for block in blocks] == [512, 512, 276]
    whole = np.concatenate(blocks)
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    assert np.allclose(whole, unit @ unit.T, atol=1e-6)
    assert np.array_equal(whole[:, 100:700], whole[:, 700:])
    one, other = rng.integers(1300, size=(2, 2000))
    assert np.allclose(table.cosines(one, other), whole[one, other], atol=1e-6)


def test_galleries_are_disjoint_and_trials_nested(world: World) -> None:
    items, known = lists.read_items(Path("items.csv")), Known()
    galleries = draw_galleries(items, known, people=4, count=3, per_person=2, seed=1)
    members = [{clip.person for clip in (*g.voices, *g.faces)} for g in galleries]
    assert [len(m) for m in members] == [4, 4, 4]
    assert len(set().union(*members)) == PEOPLE
    assert all(len(g.voices) == len(g.faces) == 8 for g in galleries)
    with pytest.raises(DataError, match="12 people have a voice and a face: not enough for 4 × 4"):
        draw_galleries(items, known, people=4, count=4)
    trials = lists.draw_trials(items, candidates=10, trials=40, seed=2)
    assert [t.probe.is_face for t in trials] == [False] * 40 + [True] * 40
    for trial in trials:
        assert trial.candidates[0].person == trial.probe.person
        assert len({clip.person for clip in trial.candidates}) == 10
        assert all(clip.is_face != trial.probe.is_face for clip in trial.candidates)
    with pytest.raises(DataError, match="too few for 1:13"):
        lists.draw_trials(items, candidates=13)


def test_seen_unseen_and_languages(world: World, run: Run) -> None:
    world.write("split.txt", [(f"p{p} {1 if p < 6 else 4}",) for p in range(PEOPLE)])
    found = run("verification", "-l", "pairs.csv", "-e", "e.npz", "--split", "split.txt", "--json")
    counts = {f["name"]: f["n"] for f in found["figures"]}
    sides = [{int(a[1:]) < 6, int(b[1:]) < 6} for *_, a, b in world.pairs]
    assert counts["AUC, seen-heard"] == sides.count({True})
    assert counts["AUC, unseen-unheard"] == sides.count({False})
    assert "6 of the people are seen in training, 6 are not" in found["notes"]

    rows = [(f"k{i} {v} {f}",) for i, (v, f, *_) in enumerate(world.pairs)]
    spoken = [row[0].replace(" v/", f" {language}/") for row, language in zip(rows, ["English", "Urdu"] * 36)]
    world.write("mav.txt", [(row,) for row in spoken])
    world.write("labels.txt", [(f"k{i} {label}",) for i, (_, _, label, *_) in enumerate(world.pairs)])
    vectors = {
        path.replace("v/", f"{language}/"): vector
        for path, vector in world.vectors.items()
        for language in ("English", "Urdu")
    }
    world.save("mav.npz", vectors)
    # every second pair is of another language: all of one kind, which makes no stratum
    alone = run("verification", "-l", "mav.txt", "--labels", "labels.txt", "-e", "mav.npz", "--json")
    assert [f["name"] for f in alone["figures"]] == ["AUC, all pairs", "EER, all pairs"]
    assert alone["people"] is None
    assert any("intervals draw clips" in note for note in alone["notes"])
    spoken = [row[0].replace(" v/", f" {'English' if i % 4 < 2 else 'Urdu'}/") for i, row in enumerate(rows)]
    world.write("mav.txt", [(row,) for row in spoken])
    found = run("verification", "-l", "mav.txt", "--labels", "labels.txt", "-e", "mav.npz", "--heard", "urdu", "--json")
    figures = {f["name"]: f["value"] for f in found["figures"]}
    each = [figures["EER, voices in English, unheard"], figures["EER, voices in Urdu, heard"]]
    assert figures["EER, mean over languages"] == pytest.approx(np.mean(each))


def test_embeddings_from_parquet_and_below_a_folder(world: World, run: Run) -> None:
    import pyarrow
    import pyarrow.parquet

    paths = list(world.vectors)
    for kind in (pyarrow.list_(pyarrow.float32()), pyarrow.list_(pyarrow.float64(), 8)):
        column = pyarrow.array([world.vectors[path].tolist() for path in paths], type=kind)
        table = pyarrow.table({"path": [f"/data/set/{path}" for path in paths], "embedding": column})
        pyarrow.parquet.write_table(table, "e.parquet")
        found = run("verification", "-l", "pairs.csv", "-e", "e.parquet", "--media", "/data/set/", "--json")
        assert found["auc"] == pytest.approx(run("verification", "-l", "pairs.csv", "-e", "e.npz", "--json")["auc"])
    half = {path: vector for path, vector in world.vectors.items() if path.startswith("v/")}
    other = {path: vector for path, vector in world.vectors.items() if path.startswith("f/")}
    world.save("voices.npz", half, space=np.array("x-8"))
    world.save("faces.npz", other, space=np.array("x-8"))
    assert read_embeddings(["voices.npz", "faces.npz"]).space == "x-8"


def test_what_crossmodal_embed_writes_can_be_read(tmp_path: Path) -> None:
    arrays = {"paths": np.array(["a.wav", "b.jpg"]), "kinds": np.array(["voice", "face"]), "embeddings": np.eye(2, 4)}
    np.savez(tmp_path / "e.npz", **arrays, space=np.array("ge2e-256"))
    table = read_embeddings([tmp_path / "e.npz"])
    assert (table.paths, table.space, table.vectors.dtype) == (["a.wav", "b.jpg"], "ge2e-256", np.float32)


def test_extreme_lengths_are_normalised() -> None:
    unit = unit_vectors(np.array([[3e38, 4e38], [3e-300, 4e-300], [3, 4]]), ["a", "b", "c"], "test")
    assert np.allclose(unit, [[0.6, 0.8]] * 3)


def test_spellings_of_voxceleb(tmp_path: Path) -> None:
    (tmp_path / "vox1_meta.csv").write_text("VoxCeleb1 ID\tVGGFace1 ID\tGender\nid10002\tA.R._Rahman\tm\n")
    people = People(tmp_path)
    old = Clip("A.R._Rahman", "gaQq", "gaQq_0000001.wav", "A.R._Rahman/gaQq_0000001.wav")
    assert spellings(old, people)[0] == old.path
    assert "wav/id10002/gaQq/00001.wav" in spellings(old, people)
    new = Clip("id10002", "gaQq", "00001.wav", "id10002/gaQq/00001.wav")
    assert old.path in spellings(new, people)
    face = Clip("A.R._Rahman", "v", "0013500.jpg", "A.R._Rahman/v/0013500.jpg")
    assert "unzippedFaces/A.R._Rahman/1.6/v/0013500.jpg" in spellings(face)
    table = Embeddings(["id10002/gaQq/00001.wav"], np.ones((1, 1), np.float32))
    assert table.rows([old, face], people).tolist() == [0, -1]


def test_unknown_attributes_are_half_an_agreement(tmp_path: Path) -> None:
    (tmp_path / "m.csv").write_text("id,gender,age\na,f,31\nb,,39.5\nc,m,40\n")
    known = Known(People(tmp_path / "m.csv"))
    assert known.agree(["a", "a", "a"], ["a", "b", "c"], "gender").tolist() == [1, 0.5, 0]
    assert known.agree(["a", "a"], ["b", "c"], "age").tolist() == [1, 0]
    with pytest.raises(DataError, match="has the nationality of nobody on the list"):
        known.require(["a"], "nationality")
    with pytest.raises(DataError, match="1 people of the list are not in it, first 'd'"):
        known.require(["a", "d"], "gender")


@pytest.mark.parametrize(
    ("command", "listed", "message"),
    [
        ("verification", "", "bad.csv: is empty"),
        ("verification", "voice,face,label\n", "bad.csv: lists nothing"),
        ("verification", "voice,face,label\nv/0-0.wav,f/0-0.jpg,1\n", "only positive pairs"),
        ("verification", "voice,face,label\nv/0-0.wav,f/1-0.jpg,0\n", "only negative pairs"),
        ("verification", "voice,face,label\nv/0-0.wav,f/1-0.jpg,maybe\n", "line 2: the label is 'maybe'"),
        ("verification", "voice,face\nv/0-0.wav,f/1-0.jpg\n", "line 2 has neither a label nor both ids"),
        ("verification", "voice,face,label,voice_id,face_id\nv/0-0.wav,f/1-0.jpg,1,a,b\n", "contradicts a and b"),
        ("verification", "voice,face,label\nv/0-0.wav,,1\n", "line 2 has no face"),
        ("verification", "voice,face,label\nv/0-0.wav,f/0-0.jpg\n", "line 2 has 2 cells under 3 headings"),
        (
            "verification",
            "voice,face,label\nx.wav,f/0-0.jpg,1\ny.wav,f/1-0.jpg,0\n",
            "2 of the list's 4 clips have no em",
        ),
        ("verification", "probe,candidate_1,candidate_2\na,b,c\n", "is a list for matching, not for verification"),
        ("verification", "a;b;c\n", "is no list that is known here"),
        ("verification", "k1 voices/x.wav faces/x.jpg\n", "line 1 has no label: give the file of labels"),
        ("matching", "probe,candidate_1,candidate_2\n", "lists nothing"),
        ("matching", "probe,candidate_1,candidate_2,answer\nv/0-0.wav,f/0-0.jpg,f/1-0.jpg,3\n", "the answer is '3'"),
        ("matching", "probe,candidate_1,candidate_2,candidate_3\na,b,c,\na,b,c,d\n", "trials of 2 and of 3 candidates"),
        (
            "matching",
            "probe,candidate_1,candidate_2\nv/0-0.wav,f/0-0.jpg,q.jpg\n",
            "1 of the list's 3 clips have no embe",
        ),
        ("retrieval", "path,id\nv/0-0.wav,p0\n", "has 1 voices and 0 faces: needs both"),
        ("retrieval", "path,id\nv/0-0,p0\n", "line 2 does not say whether 'v/0-0' is a voice or a face"),
        ("retrieval", "path,id\nv/0-0.wav,p0\nv/0-0.wav,p1\nf/0-0.jpg,p0\n", "for p0 and for p1"),
        ("retrieval", "path,id\nv/0-0.wav,p0\nf/1-0.jpg,p1\n", "0 people have a voice and a face"),
        ("retrieval", "voice,face,label\nv/0-0.wav,f/0-0.jpg,1\n", "does not say whose 'v/0-0.wav' is"),
    ],
)
def test_bad_lists_are_one_line(world: World, run: Run, command: str, listed: str, message: str) -> None:
    Path("bad.csv").write_text(listed)
    stderr = run(command, "-l", "bad.csv", "-e", "e.npz", "--report", "out.html", fails=1)
    assert message in stderr
    assert stderr.count("\n") == 1
    assert not Path("out.html").exists()


def _broken(world: World, **changes: Any) -> dict[str, Any]:
    arrays = {"paths": np.array(list(world.vectors)), "embeddings": np.stack(list(world.vectors.values()))}
    arrays.update(changes)
    return {name: value for name, value in arrays.items() if value is not None}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda v: {"embeddings": np.where(np.arange(len(v))[:, None] == 3, np.nan, v)},
            "1 embeddings are not finite, first",
        ),
        (
            lambda v: {"embeddings": np.where(np.arange(len(v))[:, None] > 69, np.inf, v)},
            "2 embeddings are not finite, fi",
        ),
        (
            lambda v: {"embeddings": v * (np.arange(len(v)) != 0)[:, None]},
            "1 embeddings are zero, first that of 'v/0-0.wav'",
        ),
        (lambda v: {"embeddings": v.astype(str)}, "not numbers"),
        (lambda v: {"embeddings": v.astype(object)}, "is no .npz of plain arrays"),
        (lambda v: {"embeddings": v[:, 0]}, "not a table of N × D"),
        (lambda v: {"embeddings": v[:, :0]}, "not a table of N × D"),
        (lambda v: {"embeddings": v[:-1]}, "has 72 paths for 71 embeddings"),
        (lambda v: {"paths": None}, "holds no paths"),
        (lambda v: {"paths": np.arange(len(v))}, "its paths are not a list of texts"),
        (lambda v: {"paths": np.array(["twice"] * len(v))}, "1 paths have more than one embedding, first 'twice'"),
    ],
)
def test_bad_embeddings_are_one_line(world: World, run: Run, change: Callable, message: str) -> None:
    vectors = np.stack(list(world.vectors.values()))
    np.savez("bad.npz", allow_pickle=True, **_broken(world, **change(vectors)))
    stderr = run("verification", "-l", "pairs.csv", "-e", "bad.npz", fails=1)
    assert message in stderr
    assert stderr.count("\n") == 1


def test_other_bad_input_is_one_line(world: World, run: Run) -> None:
    def fails(message: str, *arguments: str) -> None:
        stderr = run("verification", "-l", "pairs.csv", *arguments, fails=1)
        assert message in stderr
        assert stderr.count("\n") == 1

    Path("text.npz").write_text("text")
    Path("text.parquet").write_text("text")
    world.save("short.npz", {"z": np.ones(5)}, space=np.array("short-5"))
    world.save("named.npz", {"y": np.ones(5)}, space=np.array("other-5"))
    fails("no such file", "-e", "absent.npz")
    fails("unknown format '.csv'", "-e", "pairs.csv")
    fails("is no .npz of plain arrays", "-e", "text.npz")
    fails("is not a Parquet file", "-e", "text.parquet")
    fails("has 8 components, short.npz has 5", "-e", "e.npz", "-e", "short.npz")
    fails("is in 'short-5', named.npz in 'other-5'", "-e", "short.npz", "-e", "named.npz")
    fails("67 of the list's 67 clips have no embedding", "-e", "short.npz")
    fails("nothing on the list has all its embeddings", "-e", "short.npz", "--skip-missing")
    fails("absent.csv: no such file", "-e", "e.npz", "--meta", "absent.csv")
    fails("needs to know people: add --meta FILE", "--oracle", "gender")
    fails("the folder nowhere does not exist", "-e", "e.npz", "--report", "nowhere/x.html")
    world.write("half.csv", [("id", "gender")], [("p0", "f")])
    fails("11 people of the list are not in it, first 'p1'", "--oracle", "gender", "--meta", "half.csv")
    assert "--media" in run("verification", "-l", "pairs.csv", fails=2)
    run("verification", "-l", "pairs.csv", "--oracle", "height", fails=2)
    run("verification", "-e", "e.npz", fails=2)


def test_missing_clips_can_be_left_out(world: World, run: Run) -> None:
    some = dict(list(world.vectors.items())[1:])
    world.save("some.npz", some)
    assert "first 'v/0-0.wav'" in run("verification", "-l", "pairs.csv", "-e", "some.npz", fails=1)
    found = run("verification", "-l", "pairs.csv", "-e", "some.npz", "--skip-missing", "--json")
    assert found["n"] == 70
    assert "2 of the list's 72 pairs were left out: no embedding" in found["notes"]


def test_report_page(world: World, run: Run) -> None:
    for command, listed in (("verification", "pairs.csv"), ("matching", "items.csv"), ("retrieval", "items.csv")):
        extra = ("--trials", "20") if command == "matching" else ()
        run(command, "-l", listed, "-e", "e.npz", "--meta", "meta.csv", "--report", "page.html", *extra)
        page = Path("page.html").read_text()
        assert "gender oracle" in page
        assert "<polyline" in page
        assert ">nan<" not in page


def test_media_are_embedded_with_a_bundle(tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    from crossmodal import audio
    from tests.debug_bundle import write_debug_bundle
    from tests.generated import drawn_face, sung_voice

    monkeypatch.setattr(association, "DRAWS", 20)
    write_debug_bundle(tmp_path / "bundle")
    audio.save_wav(tmp_path / "v.wav", sung_voice(2.0, 110.0, seed=0), 16_000)
    for k in range(2):
        drawn_face(256, seed=k).save(tmp_path / f"f{k}.png")
    (tmp_path / "l.csv").write_text("voice,face,label\nv.wav,f0.png,1\nv.wav,f1.png,0\n")
    bundle = ("--bundle", str(tmp_path / "bundle"), "--device", "cpu", "--cache", str(tmp_path / "cache"))
    found = run("verification", "-l", str(tmp_path / "l.csv"), "--media", str(tmp_path), *bundle, "--json")
    assert found["n"] == 2
    assert found["bundle"]["name"] == "debug"
    assert len(list((tmp_path / "cache").glob("*.npz"))) == 1


class Listener:
    """Stands in for a journey: embeds every file by its size and remembers which."""

    embedding_space = "size-2"

    def __init__(self) -> None:
        self.bundle = Bundle.open()
        self.asked: list[str] = []

    def embed(self, source: str, *, kind: str) -> tuple[str, torch.Tensor]:
        self.asked.append(Path(source).name)
        content = Path(source).read_text()
        if content == "noise":
            raise AudioError("holds no speech", source=source)
        return kind, torch.tensor([1.0, float(len(content))])


def test_media_are_embedded_once(tmp_path: Path) -> None:
    for name in ("a.wav", "b.jpg", "c.jpg"):
        (tmp_path / name).write_text(name)
    clips = {"voice": [_clip("a.wav")], "face": [_clip("b.jpg"), _clip("c.jpg"), _clip("b.jpg")]}
    steps: list[tuple[int, int]] = []

    def embed(**options: Any) -> tuple[Embeddings, list[str]]:
        journey = Listener()
        done = lambda *step: steps.append(step)  # noqa: E731
        return embed_media(journey, clips, tmp_path, cache=tmp_path / "cache", progress=done, **options), journey.asked

    table, asked = embed()
    assert (table.space, asked) == ("size-2", ["a.wav", "b.jpg", "c.jpg"])
    assert np.allclose(table.vectors[0], np.array([1, 5]) / np.sqrt(26))
    assert steps[-1] == (3, 3)
    assert embed()[1] == []
    (tmp_path / "c.jpg").write_text("another picture")  # a changed file is embedded again, the others are not
    assert embed()[1] == ["c.jpg"]
    (tmp_path / "b.jpg").write_text("noise")
    with pytest.raises(DataError, match=r"1 of 3 files cannot be embedded, first .*b.jpg: holds no speech"):
        embed()
    (tmp_path / "c.jpg").unlink()
    with pytest.raises(DataError, match=r"1 of the list's 3 files are not there, first 'c.jpg'"):
        embed()
    assert embed(skip=True)[0].paths == ["a.wav"]
    next((tmp_path / "cache").iterdir()).write_text("damaged")
    assert embed(skip=True)[1] == ["a.wav", "b.jpg"]
    (tmp_path / "a.wav").write_text("noise")
    with pytest.raises(DataError, match="none of the list's files could be embedded"):
        embed(skip=True)
    with pytest.raises(DataError, match="no such folder"):
        embed_media(Listener(), clips, tmp_path / "absent")  # type: ignore[arg-type]


def _clip(path: str) -> Clip:
    return Clip("", "", path, path)


def test_retrieval_needs_no_whole_matrix() -> None:
    """A gallery of 1,300 is ranked 512 queries at a time."""
    rng = np.random.default_rng(0)
    base = rng.normal(size=(1300, 32))
    paths = [*(f"v{k}.wav" for k in range(1300)), *(f"f{k}.jpg" for k in range(1300))]
    table = Embeddings(paths, unit_vectors(np.concatenate([base + rng.normal(size=base.shape), base]), paths, "test"))
    clips = [Clip(f"p{path[1:-4]}", "", path, path) for path in paths]
    items, known = lists.Items(clips[:1300], clips[1300:]), Known()
    seen: list[int] = []
    score = by_cosine(table, known)

    def watched(queries: Any, gallery: Any) -> Any:
        for block in score(queries, gallery):
            seen.append(block.size)
            yield block

    found = retrieval(watched, draw_galleries(items, known), known).headline["v2f"]
    assert max(seen) == 512 * 1300
    ranks = (table.vectors[:1300] @ table.vectors[1300:].T).argsort(1)[:, ::-1] == np.arange(1300)[:, None]
    assert found["recall"]["10"] == pytest.approx(ranks[:, :10].any(1).mean(), abs=1e-3)
    assert found["map"] == pytest.approx((1 / (1 + ranks.argmax(1))).mean(), abs=1e-3)


@pytest.mark.data
@pytest.mark.parametrize(
    ("name", "auc", "eer"), [("random", 0.731, 0.350), ("G", 0.51, None)], ids=["random negatives", "same gender"]
)
def test_gender_oracle_on_the_verification_lists(
    data_root: Path, run: Run, monkeypatch: pytest.MonkeyPatch, name: str, auc: float, eer: float | None
) -> None:
    monkeypatch.setattr(association, "DRAWS", 50)
    folder = data_root / "voxceleb_protocols"
    listed = folder / "veriflist" / f"veriflist_test_{name}_unseenunheard.txt"
    found = run(
        "verification", "--list", str(listed), "--meta", str(folder / "vox1_meta.csv"), "--oracle", "gender", "--json"
    )
    assert found["auc"] == pytest.approx(auc, abs=0.0005 if eer else 0.005)
    assert eer is None or found["eer"] == pytest.approx(eer, abs=0.0005)
    assert (found["n"], found["people"]) == (30_496, 250)
    same_gender = next(f for f in found["figures"] if f["name"] == "AUC, same gender (G)")
    assert same_gender["value"] == 0.5


@pytest.mark.data
@pytest.mark.parametrize(("name", "accuracy"), [("v2f_U", 0.746), ("f2v_U", 0.738), ("v2f_G", 0.5), ("f2v_G", 0.5)])
def test_gender_oracle_on_the_matching_lists(data_root: Path, run: Run, name: str, accuracy: float) -> None:
    folder = data_root / "voxceleb_protocols"
    listed = folder / "matching" / f"matching_{name}.csv"
    found = run(
        "matching", "--list", str(listed), "--meta", str(folder / "vox1_meta.csv"), "--oracle", "gender", "--json"
    )
    assert found["accuracy"] == pytest.approx(accuracy, abs=0.0005)
    assert (found["n"], found["candidates"], found["directions"]) == (10_000, 2, [name[:3]])


def test_published_forms_are_recognised(tmp_path: Path) -> None:
    path = tmp_path / "list"
    for first, form in (
        ("id,voice-speaker-id,face-speaker-id,label,voice-path,face-path\n", "pins"),
        ("1,2,2,1,A/v_0000001.wav,A/v/0035550.jpg\n", "pins"),
        ("id10002/w9H/00001.wav A.R._Rahman/1.6/6WO/0005575.jpg Donald_Glover/1.6/Y9x/0005300.jpg\n", "cmpc"),
        ("ysuvkz41 voices/English/00000.wav faces/English/00000.jpg\n", "mav-celeb"),
        ("id0001/English/v/0.wav id0001/Urdu/w/1.jpg\n", "mav-celeb"),
        ("\n voice , face , label\n", "pairs"),
        ("probe,candidate_1,candidate_2\n", "trials"),
        ("path,id\n", "items"),
    ):
        path.write_text(first)
        assert lists.form_of(path) == form
    path.write_text("probe,candidate_1,candidate_2,candidate_10,answer\na.wav,b.jpg,c.jpg,d.jpg,2\n")
    trial = lists.read_trials(path)[0]
    assert isinstance(trial, MatchingTrial)
    assert [clip.path for clip in association.ordered_candidates(trial)] == ["c.jpg", "b.jpg", "d.jpg"]
