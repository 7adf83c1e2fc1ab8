"""Face detection and embedding with dlib, and the distance below which two faces are the same person's.

dlib embeds a face as 128 numbers. Its network was trained so that faces of one person lie within 0.6 of each other;
with that threshold it classifies 99.38 % of the pairs of LFW correctly (Davis King, dlib-models, 2017).

dlib is under the Boost licence. The weights, in the package face_recognition_models, are in the public domain (CC0).
Its model of 68 landmarks, whose training data exclude commercial use, is not used. crce contains none of them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL.Image import Image, Resampling

from crce.errors import ModelError
from crce.files import sha256
from crce.judges.judge import missing_package


SAME_PERSON = 0.6  # largest distance between two faces of one person
WEIGHTS = (
    "dlib_face_recognition_resnet_model_v1.dat",
    "mmod_human_face_detector.dat",
    "shape_predictor_5_face_landmarks.dat",
)
SIDES = (1024, 512)  # pixels of the longer side, for the fast detector and the accurate one


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
            self.hash = hashlib.sha256(hashes.encode()).hexdigest()[:16]
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

    def find(self, image: Image) -> torch.Tensor:
        """An embedding of each face, the most confident detection first, shape (F, 128)."""
        pixels = _scaled(image, SIDES[0])
        boxes, scores, _ = self._fast.run(pixels, 0, 0.0)
        found = list(zip(scores, boxes, strict=True))
        if not found:
            pixels = _scaled(image, SIDES[1])
            found = [(face.confidence, face.rect) for face in self._accurate(pixels, 0)]
        found.sort(key=lambda pair: -pair[0])
        embedded = [self._network.compute_face_descriptor(pixels, self._landmarks(pixels, box)) for _, box in found]
        return torch.tensor([list(face) for face in embedded], dtype=torch.float32).reshape(-1, 128)


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


def image_key(image: Image) -> str:
    """The SHA-256 of an image's size and pixels."""
    rgb = image.convert("RGB")
    return hashlib.sha256(f"{rgb.size}".encode() + rgb.tobytes()).hexdigest()


def _scaled(image: Image, side: int) -> np.ndarray:
    """The image with its longer side scaled to a length, shape (h, w, 3): dlib finds faces of 80 pixels or more."""
    scale = side / max(image.size)
    size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    return np.array(image.convert("RGB").resize(size, Resampling.LANCZOS))
