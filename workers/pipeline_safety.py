"""A local image classifier out of a folder; it runs on the CPU, beside the device that draws."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any, Final

from PIL import Image

from fluxfarm.errors import ModelUnavailable
from fluxfarm.settings import Settings

SIDE: Final = 224  #: pixels, where the folder says nothing
HALF: Final = (0.5, 0.5, 0.5)


class Classifier:
    """Loaded once, with the first picture; safe to share between threads."""

    def __init__(self, settings: Settings) -> None:
        """Nothing is read yet."""
        assert settings.classifier is not None
        self._folder: Path = settings.classifier
        self._labels = [label.strip().casefold() for label in settings.classifier_labels.split(",") if label.strip()]
        self._threshold = settings.classifier_threshold
        self._lock = threading.Lock()
        self._loaded: tuple[Any, dict[int, str], dict[str, Any]] | None = None

    def unwanted(self, picture: Image.Image) -> tuple[str, float] | None:
        """The unwanted label with the highest score and that score, if it reaches the threshold.

        Raises:
            ModelUnavailable: the folder is no classifier, has none of the labels, or PyTorch is missing.
        """
        model, labels, how = self._load()
        import torch

        with torch.inference_mode():
            scores = model(pixel_values=_pixels(picture, how)).logits[0].float().softmax(0).tolist()
        number = max(labels, key=lambda one: scores[one])
        return (labels[number], scores[number]) if scores[number] >= self._threshold else None

    def _load(self) -> tuple[Any, dict[int, str], dict[str, Any]]:
        with self._lock:
            if self._loaded is None:
                self._loaded = self._read()
            return self._loaded

    def _read(self) -> tuple[Any, dict[int, str], dict[str, Any]]:
        try:
            from transformers import AutoModelForImageClassification

            model = AutoModelForImageClassification.from_pretrained(
                str(self._folder), local_files_only=True, use_safetensors=True, trust_remote_code=False
            )
            path = self._folder / "preprocessor_config.json"
            how: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
        except Exception as error:
            message = f"The classifier in {self._folder.name} cannot be loaded ({type(error).__name__})."
            raise ModelUnavailable(message) from error
        known = {int(number): label for number, label in model.config.id2label.items()}
        wanted = {number: label for number, label in known.items() if label.casefold() in self._labels}
        if not wanted:
            names = ", ".join(sorted(known.values()))[:300]
            raise ModelUnavailable(f"The classifier has none of FLUXFARM_CLASSIFIER_LABELS; it knows {names}.")
        return model.eval(), wanted, how


def _pixels(picture: Image.Image, how: dict[str, Any]) -> Any:
    """The picture as the model was taught to see it: its size, mean and deviation from ``preprocessor_config.json``."""
    import torch

    size = how.get("size", SIDE)
    if isinstance(size, dict):
        edge = size.get("shortest_edge", SIDE)
        size = (size.get("width", edge), size.get("height", edge))
    else:
        size = (size, size)
    small = picture.convert("RGB").resize(size, Image.Resampling.BICUBIC)
    values = torch.frombuffer(bytearray(small.tobytes()), dtype=torch.uint8).reshape(1, size[1], size[0], 3)
    scaled = values.permute(0, 3, 1, 2).float() / 255
    mean, deviation = (torch.tensor(how.get(name, HALF)).reshape(1, 3, 1, 1) for name in ("image_mean", "image_std"))
    return (scaled - mean) / deviation
