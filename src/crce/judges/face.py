"""Whose face a picture shows, for targets of the kind "person".

A picture shows a person if one of its faces lies within dlib's distance of one person (see
`crce.judges.faces`) of the mean of the person's references. These are photos that the user gives, or else the
base model's own pictures of the person.
"""

from __future__ import annotations

import copy
import hashlib
import logging
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from PIL import Image, ImageOps

from crce.concepts.concept_set import fold
from crce.errors import ConfigError
from crce.judges.concept_classes import ConceptClasses, concept_classes
from crce.judges.faces import NOBODY, SAME_PERSON, DlibFaces, Faces, References, agreeing, picture_key


if TYPE_CHECKING:
    from crce.concepts import ConceptSet

log = logging.getLogger(__name__)

ANSWERS = ("yes", "no", "no face")


class FaceJudge:
    """Compares the faces of a picture with those of a person.

    A score is 1 less the distance, so that the threshold of 0.4 is dlib's distance of 0.6.

    Attributes:
        classes: the persons of the concept sets it was last told about, see `about`; none before.
        known_pictures: how many pictures of the base model it is calibrated with, at most: all there are.
    """

    threshold = 1 - SAME_PERSON
    known_pictures = sys.maxsize

    def __init__(self, model: str = "", *, device: str = "auto", faces: Faces | None = None) -> None:
        """Load dlib; the photos are read when the run is known.

        Args:
            model: a folder that holds a folder of photos for each person, under the person's name; "" takes the base
                model's own pictures for references.
            device: not used, as dlib chooses for itself.
            faces: takes the place of dlib.

        Raises:
            ConfigError: there is no such folder.
            ModelError: a package is missing.
        """
        self._folder = Path(model) if model else None
        if self._folder and not self._folder.is_dir():
            raise ConfigError(
                f"The judge face was given {model!r}, which is no folder. "
                "Give a folder with a folder of photos for each person, FOLDER/NAME/, or none."
            )
        self.name = f"face:{model}" if model else "face"
        self._faces: Faces = faces or DlibFaces()
        self.version = self._faces.version
        self.hash = self._faces.hash
        self.classes: list[str] = []
        self._known = ConceptClasses({}, {})
        self._references: dict[str, References] = {}
        self._drawn: dict[str, dict[str, torch.Tensor]] = {}  # by person and picture the surest face, shape (D,)
        self._has_learned = False
        self._seen: dict[str, torch.Tensor] = {}  # by picture its faces: they are the same whoever is told what

    def about(
        self, sets: Sequence[ConceptSet], folder: Path | None = None, *, unrelated: Sequence[str] = ()
    ) -> FaceJudge:
        """This judge with the persons of some concept sets; it keeps nothing in the folder.

        Raises:
            ConfigError: no set is about a person, or the photos of a person who is erased are missing or of no use.
        """
        persons = [c for c in sets if c.kind == "person"]
        if not persons:
            erased = ", ".join(f"{c.target!r} of the kind {c.kind}" for c in sets)
            raise ConfigError(
                f"The judge face knows persons, and this run erases {erased}. Use another judge, or write "
                "kind: person into the concept set."
            )
        judge = copy.copy(self)
        known = concept_classes(persons)
        own = {name: texts for name, texts in known.phrases.items() if known.kinds[name] == "person"}
        judge._references, judge._drawn, judge._has_learned = {}, {}, False
        if self._folder:
            photos = _photos(self._folder, own)
            _check_photos(photos, self._folder, own, persons)
            judge._references = {name: self._read(files, name) for name, files in photos.items()}
            own = {name: own[name] for name in own if name in photos}
            said = "".join(key for references in judge._references.values() for key in references.keys)
            judge.version = f"{self.version}, photos {hashlib.sha256(said.encode()).hexdigest()[:8]}"
        judge._known = ConceptClasses(own, dict.fromkeys(own, "person"))
        judge.classes = judge._known.names
        return judge

    def calibrate(
        self, shown: Sequence[tuple[Image.Image, str]], absent: Sequence[tuple[Image.Image, str]]
    ) -> dict[str, Any] | None:
        """Learn the persons' faces from the base model's pictures, unless there are photos.

        Of the faces that were drawn for a person, those count that lie within 0.6 of the one which most of the others
        are near to: a model that draws somebody else each time has no face of that person.
        """
        self._has_learned = True
        if not self._folder:
            for image, label in shown:
                drawn = self._drawn.setdefault(label, {})
                drawn.update({picture_key(image): surest for surest in self._see(image)[:1]})
            for label in dict.fromkeys(label for _, label in shown):
                self._references[label] = agreeing(self._drawn[label])
                if not self._references[label].keys:
                    log.warning("The base model's pictures of %s show no face twice: it can't be measured.", label)
        if not shown:
            return None
        sides = {"shown": shown, "absent": absent}
        counts = {side: Counter(self._answer(image, label) for image, label in sides[side]) for side in sides}
        return {
            **{side: {answer: counts[side][answer] for answer in ANSWERS} for side in sides},
            "references": {label: len(own.keys) for label, own in self._references.items()},
        }

    def scores(self, images: list[Image.Image], label: str) -> torch.Tensor:
        """How near the face of `label` is in each picture, in [0, 1], shape (B,); 0 where there is no face.

        Raises:
            ConfigError: there is nothing to compare with.
        """
        if label not in self._references and not self._has_learned:
            raise ConfigError(
                f"The judge {self.name} has no face of {label!r} to compare with. Give it photos: "
                "--judge face:FOLDER, with a folder NAME/ for each person."
            )
        own = self._references.get(label, NOBODY)
        # One of the base model's pictures is compared with the others: with itself it would always agree.
        without = ["" if self._folder else picture_key(image) for image in images]
        distances = [own.distance(self._see(i), without=key) for i, key in zip(images, without, strict=True)]
        return torch.tensor([max(0.0, 1 - distance) for distance in distances])

    def probs(self, images: list[Image.Image]) -> torch.Tensor:
        """The score of every person by itself, shape (B, K)."""
        if not self.classes:
            raise ConfigError(f"The judge {self.name} knows nobody yet. Tell it what the run is about, with about.")
        return torch.stack([self.scores(images, label) for label in self.classes], 1)

    def class_of(self, text: str) -> str | None:
        """The person whom a phrase of the concept sets means; None for other phrases."""
        return self._known.class_of(text)

    def _answer(self, image: Image.Image, label: str) -> str:
        if not len(self._see(image)):
            return "no face"
        return "yes" if self.scores([image], label)[0] >= self.threshold else "no"

    def _see(self, image: Image.Image) -> torch.Tensor:
        """The faces of a picture, the surest first, shape (F, D); each picture is looked at once."""
        key = picture_key(image)
        if key not in self._seen:
            self._seen[key] = self._faces.find(image)
        return self._seen[key]

    def _read(self, files: Sequence[Path], name: str) -> References:
        """The surest face of each photo of a person."""
        found: dict[str, torch.Tensor] = {}
        faceless, origin = [], {}
        for file in files:
            image = _open(file)
            faces = self._see(image)
            if len(faces):
                found[picture_key(image)], origin[picture_key(image)] = faces[0], file
            else:
                faceless.append(file)
        if not found:
            raise ConfigError(
                f"The judge {self.name} finds no face of {name!r} in {_listed(files)}. "
                "Give photos with the face in full view, at least a tenth of the picture wide."
            )
        if faceless:
            log.warning("No face of %s was found in %s: left out.", name, _listed(faceless))
        references = References(tuple(found), torch.stack(list(found.values())))
        apart = [
            origin[key]
            for key, face in zip(references.keys, references.faces, strict=True)
            if len(found) > 1 and references.distance(face[None], without=key) > SAME_PERSON
        ]
        if apart:
            log.warning(
                "Another face than on the other photos of %s is on %s. Is it the same person?", name, _listed(apart)
            )
        return references


def _photos(folder: Path, persons: Mapping[str, Sequence[str]]) -> dict[str, list[Path]]:
    """By person the files in the folders that bear the person's name, or one of its corefs; spaces may be "_"."""
    folders = {fold(path.name.replace("_", " ")): path for path in sorted(folder.iterdir()) if path.is_dir()}
    endings = {ending for ending, kind in Image.registered_extensions().items() if kind in Image.OPEN}
    photos = {}
    for name, texts in persons.items():
        own = [folders[fold(text)] for text in texts if fold(text) in folders]
        files = [
            file
            for path in own
            for file in sorted(path.iterdir())
            if file.suffix.lower() in endings and file.is_file()
        ]
        if files:
            photos[name] = files
    return photos


def _check_photos(
    photos: Mapping[str, Sequence[Path]],
    folder: Path,
    persons: Mapping[str, Sequence[str]],
    sets: Sequence[ConceptSet],
) -> None:
    """
    Raises:
        ConfigError: a person who is erased has no photos.
    """
    missing = [name for name in persons if name not in photos]
    for concepts in sets:
        if concepts.target in missing:
            there = ", ".join(sorted(path.name for path in folder.iterdir() if path.is_dir())) or "nothing"
            raise ConfigError(
                f"The judge face finds no photos of {concepts.target!r}. Put some (.jpg, .png, .webp) into "
                f"{folder / concepts.target}; there now: {there}."
            )
    if missing:
        log.warning("No photos of %s in %s: what became of them is not measured.", ", ".join(missing), folder)


def _open(file: Path) -> Image.Image:
    try:
        with Image.open(file) as image:
            return ImageOps.exif_transpose(image).convert("RGB")  # photos of phones lie on their side
    except (OSError, SyntaxError, ValueError) as error:
        raise ConfigError(f"Cannot read the photo {file}: {error}. Replace it, or take it away.") from error


def _listed(files: Sequence[Path], most: int = 5) -> str:
    more = len(files) - most
    return ", ".join(map(str, files[:most])) + (f" and {more} more" if more > 0 else "")
