"""The judge of faces: its decisions over faces that are made up, and dlib over photos of two people.

The second part needs dlib with its weights and the photos that scikit-image and matplotlib carry: Eileen Collins and
Grace Hopper, both in the public domain. It is left out by default:

python -m pytest -m face tests/judges/test_face.py
"""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Mapping, Sequence

import pytest
import torch
from PIL import Image, ImageEnhance, ImageOps
from PIL.Image import Resampling

from crce.concepts import ConceptSet, Related
from crce.errors import ConfigError, ModelError
from crce.evaluate import evaluate
from crce.evaluate.page import list_facts
from crce.judges import CalibratedJudge, Detector, OpenJudge, load_judge
from crce.judges.face import FaceJudge, agreeing
from crce.judges.judge import name_pictures
from crce.training import Erasure


ADA = ConceptSet(
    "Ada Lovelace",
    kind="person",
    corefs=(Related("Countess of Lovelace"), Related("Lady Lovelace", held_out=True)),
    retains=(Related("Grace Hopper"), Related("Mary Shelley", held_out=True)),
)
CAT = ConceptSet("cat", retains=(Related("dog"),))


def plate(*faces: tuple[int, int]) -> Image.Image:
    """A picture that shows faces to `Plates`: each a person and an expression."""
    image = Image.new("RGB", (8, 8))
    image.putpixel((0, 7), (9, 9, 9))  # a picture of one colour counts as failed
    for x, (person, expression) in enumerate(faces):
        image.putpixel((x, 0), (person, expression, 255))
    return image


class Plates:
    """Finds what `plate` painted: persons are 1.4 apart, expressions of one person at most 0.3."""

    version, hash = "plates 1", "0123456789abcdef"

    def __init__(self):
        self.looked = 0

    def find(self, image):
        self.looked += 1
        row = [image.getpixel((x, 0)) for x in range(8)]
        faces = torch.zeros(sum(pixel[2] == 255 for pixel in row), 8)
        for face, (person, expression, _) in zip(faces, row, strict=False):
            face[person], face[7] = 1, expression / 100
        return faces


@pytest.fixture
def judge():
    return FaceJudge(faces=Plates())


@pytest.fixture
def photos(tmp_path):
    """Photos of Ada (person 0), under two of her names, and of Grace (person 1)."""
    for name, pictures in {
        "ada_lovelace": [plate((0, 0)), plate((0, 10))],
        "Lady Lovelace": [plate((0, 20))],
        "Grace Hopper": [plate((1, 0), (2, 0))],
    }.items():
        (tmp_path / name).mkdir()
        for i, picture in enumerate(pictures):
            picture.save(tmp_path / name / f"{i}.png")
        (tmp_path / name / "notes.txt").write_text("where the photos are from")
    return tmp_path


def test_a_picture_shows_a_person_whose_face_is_near_the_mean_of_the_photos(photos):
    judge = FaceJudge(str(photos), faces=Plates()).about([ADA])
    pictures = [plate((0, 30)), plate((3, 0), (0, 0)), plate((1, 0)), plate()]
    expected = [1 - 0.2, 1 - 0.1, 0, 0]  # the mean of the expressions is 10; another person is farther than 1
    assert judge.scores(pictures, "Ada Lovelace").tolist() == pytest.approx(expected, abs=1e-5)
    words = name_pictures(judge, pictures, "Ada Lovelace", judge.threshold)
    assert words == ["Ada Lovelace", "Ada Lovelace", "no Ada Lovelace", "no Ada Lovelace"]
    assert judge.probs(pictures)[:, 1].tolist() == pytest.approx([0, 0, 1, 0], abs=1e-5)


def test_a_picture_that_is_the_only_photo_shows_the_person(photos):
    judge = FaceJudge(str(photos), faces=Plates()).about([ADA])
    assert judge.scores([plate((1, 0), (2, 0))], "Grace Hopper").tolist() == [1]


def test_the_threshold_is_a_distance_of_six_tenths(photos):
    judge = FaceJudge(str(photos), faces=Plates()).about([ADA])
    near, far = plate((0, 69)), plate((0, 71))  # the mean is at 10
    assert name_pictures(judge, [near, far], "Ada Lovelace", judge.threshold) == ["Ada Lovelace", "no Ada Lovelace"]


def test_persons_are_known_by_their_names_and_corefs(photos, caplog):
    judge = FaceJudge(str(photos), faces=Plates())
    assert isinstance(judge, Detector)
    assert isinstance(judge, OpenJudge)
    assert isinstance(judge, CalibratedJudge)
    about = judge.about([ADA, CAT])
    assert about.classes == ["Ada Lovelace", "Grace Hopper"]
    assert about.class_of("countess of lovelace") == "Ada Lovelace"
    assert about.class_of("Mary Shelley") is None
    assert about.class_of("cat") is None
    assert about.class_of("a sunflower") is None
    assert "No photos of Mary Shelley" in caplog.text
    assert judge.classes == []
    assert judge.class_of("Ada Lovelace") is None
    assert FaceJudge(faces=Plates()).about([ADA]).classes == ["Ada Lovelace", "Grace Hopper", "Mary Shelley"]


def test_version_tells_other_photos_apart(photos):
    judge = FaceJudge(str(photos), faces=Plates())
    before = judge.about([ADA])
    assert before.name == f"face:{photos}"
    assert re.fullmatch(r"plates 1, photos [0-9a-f]{8}", before.version)
    assert judge.about([ADA]).version == before.version
    plate((0, 5)).save(photos / "ada_lovelace" / "more.png")
    assert judge.about([ADA]).version != before.version
    assert FaceJudge(faces=Plates()).about([ADA]).version == "plates 1"


def test_photos_of_phones_are_set_upright(photos, tmp_path):
    turned = plate((0, 40)).transpose(Image.Transpose.ROTATE_90)
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was held on its side
    turned.save(photos / "ada_lovelace" / "phone.png", exif=exif)
    faces = FaceJudge(str(photos), faces=Plates()).about([ADA])._references["Ada Lovelace"].values()
    assert sorted(face[7].item() for face in faces) == pytest.approx([0, 0.1, 0.2, 0.4])


def test_photos_without_a_face_or_of_somebody_else_are_named(photos, caplog):
    plate().save(photos / "ada_lovelace" / "landscape.png")
    plate((4, 0)).save(photos / "ada_lovelace" / "sister.png")
    FaceJudge(str(photos), faces=Plates()).about([ADA])
    assert re.search(r"No face of Ada Lovelace was found in \S+landscape\.png: left out", caplog.text)
    assert re.search(r"on \S+sister\.png differs.* Same person\?", caplog.text)


def test_photos_that_are_of_no_use_are_refused(photos):
    judge = FaceJudge(str(photos), faces=Plates())
    with pytest.raises(ConfigError, match=r"no photos of 'Mary Shelley'\. Put some .*Mary Shelley; there now: Grace"):
        judge.about([ADA, ConceptSet("Mary Shelley", kind="person")])
    plate().save(photos / "Grace Hopper" / "0.png")
    with pytest.raises(
        ConfigError, match=r"finds no face of 'Grace Hopper' in .+Hopper/0\.png\. Give photos"
    ) as caught:
        judge.about([ADA])
    assert "\n" not in str(caught.value)
    (photos / "Grace Hopper" / "0.png").write_bytes(b"no picture")
    with pytest.raises(ConfigError, match=r"Cannot read the photo .+0\.png"):
        judge.about([ADA])
    with pytest.raises(ConfigError, match=r"not a folder.*FOLDER/NAME/"):
        FaceJudge(str(photos / "nowhere"), faces=Plates())


def test_runs_without_a_person_are_refused(judge):
    with pytest.raises(ConfigError, match=r"erases 'cat' of the kind object.*kind: person"):
        judge.about([CAT])


def test_without_photos_or_pictures_of_the_base_model_nothing_can_be_compared(judge):
    with pytest.raises(ConfigError, match="has no classes yet"):
        judge.probs([plate()])
    with pytest.raises(ConfigError, match=r"no face of 'Ada Lovelace'.*--judge face:FOLDER"):
        judge.about([ADA]).scores([plate((0, 0))], "Ada Lovelace")


def test_base_model_shows_the_faces_where_there_are_no_photos(judge):
    """Most of Ada's pictures agree, and those count; every picture of Mary is of somebody else."""
    about = judge.about([ADA])
    ada = [plate((0, 0)), plate((5, 0)), plate((0, 20)), plate((0, 40)), plate()]
    mary = [plate((3, 0)), plate((4, 0))]
    shown = [*((p, "Ada Lovelace") for p in ada), *((p, "Mary Shelley") for p in mary)]
    learned = about.calibrate(shown, [(p, "Ada Lovelace") for p in mary])
    assert learned == {
        "shown": {"yes": 3, "no": 3, "no face": 1},
        "absent": {"yes": 0, "no": 2, "no face": 0},
        "references": {"Ada Lovelace": 3, "Mary Shelley": 0},
    }
    # Its own pictures are compared with the two others; a new one with all three.
    assert about.scores(ada, "Ada Lovelace").tolist() == pytest.approx([0.7, 0, 1, 0.7, 0], abs=1e-5)
    assert about.scores([plate((0, 50))], "Ada Lovelace").item() == pytest.approx(0.7, abs=1e-5)
    assert about.scores(mary, "Mary Shelley").tolist() == [0, 0]
    assert about.scores(mary, "Grace Hopper").tolist() == [0, 0]  # the base model drew no picture of her
    assert judge._references == {}
    assert judge.about([ADA])._references == {}


def test_faces_agree_with_that_one_to_which_most_are_near():
    faces = torch.tensor([[0.0], [0.5], [1.0], [3.0], [3.1]])
    found = agreeing({str(i): face for i, face in enumerate(faces)})
    assert {key: face.item() for key, face in found.items()} == {"0": 0, "1": 0.5, "2": 1}
    assert agreeing({"0": faces[0], "3": faces[3]}) == {}
    assert agreeing({"0": faces[0]}) == agreeing({}) == {}


def test_every_picture_is_looked_at_once(photos):
    faces = Plates()
    judge = FaceJudge(str(photos), faces=faces).about([ADA])
    looked = faces.looked
    assert looked == 4
    for _ in range(2):
        judge.probs([plate((0, 0)), plate((6, 0))])  # the first is one of the photos
    assert faces.looked == looked + 1


@pytest.mark.skipif(importlib.util.find_spec("dlib") is not None, reason="the package dlib is installed")
def test_missing_dlib_says_how_to_get_it():
    with pytest.raises(ModelError, match=r"needs the package dlib .*pip install 'crce\[face\]'"):
        load_judge("face")


# ---- A run ---------------------------------------------------------------------------------------------------------


class Gallery:
    """Stands in for drawing, as `ColourModel` does, with pictures by phrase: for the base model and the erased one."""

    def __init__(self, base: Mapping[str, Sequence[Image.Image]], erased: Mapping[str, Sequence[Image.Image]]):
        self.pictures = {True: base, False: {**base, **erased}}

    def hang(self, model):
        """Let the model of the tests draw them."""
        model.draw = self._draw
        self.model = model
        return self

    def _draw(self, pipe, prompts, seeds, *, on_drawn, **settings):
        drawn = []
        for prompt, seed in zip(prompts, seeds, strict=True):
            own = self.pictures[self.model.is_base][prompt]
            drawn.append(own[seed % len(own)])
            on_drawn(1)
        return drawn


@pytest.fixture
def of_ada(erasure):
    return Erasure(erasure.folder, (ADA,), erasure.config, {**erasure.info, "targets": ["Ada Lovelace"]})


@pytest.fixture
def gallery(model, monkeypatch):
    def make(base, erased):
        gallery = Gallery(base, erased).hang(model)
        monkeypatch.setattr("crce.sampling.image_cache.draw", model.draw)
        return gallery

    return make


def test_a_run_is_measured_by_the_base_models_own_faces(of_ada, judge, backbone, gallery):
    """Ada is gone, but for one name of hers; Grace is as before; Mary was somebody else each time."""
    ada, grace = ([plate((person, 10 * k)) for k in range(4)] for person in (0, 1))
    mary = [plate((person, 0)) for person in (2, 3, 4, 5)]
    names = ["Ada Lovelace", "Countess of Lovelace", "Lady Lovelace"]
    base = {**dict.fromkeys(names, ada), "Grace Hopper": grace, "Mary Shelley": mary}
    gallery(base, {"Ada Lovelace": [plate()], "Countess of Lovelace": mary})
    report = evaluate(of_ada, judge=judge, backbone=backbone, images_per_prompt=4)
    groups = report.data["groups"]
    words = {p["text"]: p["words"] for group in groups.values() for p in group["prompts"]}
    assert words["Ada Lovelace"] == {
        "base": ["Ada Lovelace"] * 4,
        "erased": ["no Ada Lovelace"] * 4,
        "probe": ["Ada Lovelace"] * 4,
    }
    assert words["Countess of Lovelace"]["erased"] == ["no Ada Lovelace"] * 4
    assert words["Lady Lovelace"]["erased"] == ["Ada Lovelace"] * 4
    assert words["Grace Hopper"] == dict.fromkeys(("base", "erased", "probe"), ["Grace Hopper"] * 4)
    assert words["Mary Shelley"]["base"] == ["no Mary Shelley"] * 4
    assert report.summary["erased"]["value"] == 1
    assert report.summary["coref_erased"]["value"] == 0
    named = report.data["judge"]
    assert (named["name"], named["version"], named["hash"]) == ("face", "plates 1", "0123456789abcdef")
    assert named["threshold"] == pytest.approx(0.4)
    assert named["class_list"] == ["Ada Lovelace", "Grace Hopper", "Mary Shelley"]
    assert named["calibration"]["references"] == {"Ada Lovelace": 4, "Grace Hopper": 4, "Mary Shelley": 0}
    assert named["calibration"]["absent"] == {"yes": 0, "no": 8, "no face": 0}
    said = list_facts(report.data, of_ada.info)["Its answers"]
    assert said.endswith("faces to compare with: 4 of Ada Lovelace, 4 of Grace Hopper, 0 of Mary Shelley")


# ---- dlib ----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def dlib_judge():
    return load_judge("face")


@pytest.fixture(scope="module")
def people():
    """Each person by ten pictures of one photo: cut, mirrored, turned, brighter, darker, grey, small."""
    import matplotlib.cbook
    import skimage.data

    hopper = matplotlib.cbook.get_sample_data("grace_hopper.jpg", asfileobj=False)
    photos = {
        "Eileen Collins": Image.fromarray(skimage.data.astronaut()).crop((80, 0, 380, 300)),
        "Grace Hopper": Image.open(hopper).convert("RGB").crop((60, 0, 460, 400)),
    }
    return {name: variants(photo) for name, photo in photos.items()}


def variants(photo: Image.Image) -> list[Image.Image]:
    small = photo.resize((96, 96), Resampling.LANCZOS)
    return [
        photo,
        ImageOps.mirror(photo),
        ImageEnhance.Brightness(photo).enhance(0.6),
        ImageEnhance.Brightness(photo).enhance(1.4),
        ImageEnhance.Color(photo).enhance(0),
        ImageEnhance.Contrast(photo).enhance(0.6),
        photo.rotate(10, Resampling.BICUBIC),
        ImageOps.mirror(photo).rotate(-10, Resampling.BICUBIC),
        photo.crop((10, 10, photo.width - 20, photo.height - 20)),
        small,
    ]


def faceless() -> list[Image.Image]:
    import skimage.data

    return [Image.fromarray(picture) for picture in (skimage.data.chelsea(), skimage.data.rocket())]


EILEEN = ConceptSet(
    "Eileen Collins",
    kind="person",
    corefs=(Related("Colonel Collins"), Related("Eileen Marie Collins", held_out=True)),
    retains=(Related("Grace Hopper"), Related("Grace Brewster Hopper", held_out=True)),
)


@pytest.mark.face
def test_dlib_tells_two_people_apart(dlib_judge, people, tmp_path):
    for name in people:
        (tmp_path / name).mkdir()
        people[name][0].save(tmp_path / name / "photo.png")
    judge = load_judge(f"face:{tmp_path}").about([EILEEN])
    assert judge.hash == dlib_judge.hash
    assert re.fullmatch(r"dlib \d+\.\d+.*, photos [0-9a-f]{8}", judge.version)
    for name in people:
        other = next(n for n in people if n != name)
        assert name_pictures(judge, people[name][1:], name, judge.threshold) == [name] * 9
        assert name_pictures(judge, people[other], name, judge.threshold) == [f"no {name}"] * 10
        assert name_pictures(judge, faceless(), name, judge.threshold) == [f"no {name}"] * 2


@pytest.mark.face
def test_dlib_finds_a_face_from_the_side_with_its_thorough_detector(dlib_judge):
    import skimage.data

    faces = dlib_judge._faces
    photographer = Image.fromarray(skimage.data.camera()).convert("RGB")
    assert faces.find(photographer).shape == (1, 128)
    assert not faces._fast(skimage.data.camera(), 0)


@pytest.mark.face
def test_dlib_finds_two_people_in_one_picture(dlib_judge, people, tmp_path):
    pair = Image.new("RGB", (800, 400))
    for i, pictures in enumerate(people.values()):
        pair.paste(pictures[0].resize((400, 400)), (400 * i, 0))
        (tmp_path / list(people)[i]).mkdir()
        pictures[0].save(tmp_path / list(people)[i] / "photo.jpg")
    judge = load_judge(f"face:{tmp_path}").about([EILEEN])
    assert (judge.probs([pair]) > judge.threshold).all()


@pytest.mark.face
def test_photos_of_no_face_are_refused_by_name(people, tmp_path):
    (tmp_path / "Eileen Collins").mkdir()
    for i, picture in enumerate(faceless()):
        picture.save(tmp_path / "Eileen Collins" / f"{i}.png")
    with pytest.raises(ConfigError, match=r"no face of 'Eileen Collins' in .+0\.png, .+1\.png\. Give"):
        load_judge(f"face:{tmp_path}").about([EILEEN])


@pytest.mark.face
@pytest.mark.parametrize("with_photos", [False, True])
def test_a_run_is_measured_from_end_to_end(with_photos, people, tmp_path, erasure, backbone, gallery):
    """The target became a cat, a trained coref became Grace Hopper, and a held-out coref still shows the target."""
    eileen, grace = people["Eileen Collins"], people["Grace Hopper"]
    names = ["Eileen Collins", "Colonel Collins", "Eileen Marie Collins"]
    retains = ["Grace Hopper", "Grace Brewster Hopper"]
    gallery(
        {**dict.fromkeys(names, eileen), **dict.fromkeys(retains, grace)},
        {"Eileen Collins": faceless(), "Colonel Collins": grace},
    )
    folder = tmp_path / "photos"
    for name in people:
        (folder / name).mkdir(parents=True)
        people[name][0].save(folder / name / "photo.png")
    run = Erasure(erasure.folder, (EILEEN,), erasure.config, {**erasure.info, "targets": ["Eileen Collins"]})
    spec = f"face:{folder}" if with_photos else "face"
    report = evaluate(run, judge=spec, backbone=backbone, images_per_prompt=5)
    groups = report.data["groups"]
    assert report.summary["erased"]["value"] == 1
    assert report.summary["coref_erased"]["value"] == 0
    assert set(groups["coref"]["prompts"][0]["words"]["erased"]) == {"no Eileen Collins"}
    assert groups["retain"]["prompts"][0]["words"]["erased"] == ["Grace Hopper"] * 5
    named = report.data["judge"]
    assert named["name"] == spec
    assert named["calibration"]["absent"]["yes"] == 0
    if with_photos:  # the other name of the retained person has no photos
        assert groups["retain_held_out"]["prompts"][0]["left_out"].endswith('no class for "Grace Brewster Hopper"')
        assert named["calibration"]["references"] == {"Eileen Collins": 1, "Grace Hopper": 1}
    else:
        assert report.summary["kept"]["value"] == 1
        assert named["calibration"]["references"]["Eileen Collins"] == 5
