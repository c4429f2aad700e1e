"""What the tests of evaluators share: pictures of one colour, and an embedder that knows colours and nothing else."""
import io

import numpy as np
import pytest
from PIL import Image

from cc_jax.data.transforms import ImageError, view
from cc_jax.evals.embedder import Embedder

COLOURS = {"red": (255, 0, 0), "green": (0, 255, 0), "blue": (0, 0, 255), "black": (0, 0, 0), "white": (255, 255, 255),
           "yellow": (255, 255, 0), "grey": (128, 128, 128)}


def unit(vectors) -> np.ndarray:
    vectors = np.asarray(vectors, np.float32).reshape(len(vectors), -1)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


@pytest.fixture(scope="session")
def picture():
    """A PNG of one colour, by its name or its values."""
    def draw(colour) -> bytes:
        stream = io.BytesIO()
        Image.new("RGB", (4, 4), COLOURS.get(colour, colour)).save(stream, "PNG")
        return stream.getvalue()
    return draw


@pytest.fixture
def colours():
    """Embeds a picture by its colour, and a text by that of the first colour word in it, plus what else it says."""
    def of_text(text: str) -> tuple:
        words = text.split()
        colour = next((COLOURS[word] for word in words if word in COLOURS), (128, 128, 128))
        return *(np.array(colour) / 127.5 - 1), 0.1 * len(words)

    def images(files):
        found = []
        for file in files:
            try:
                found.append((*(view(file, 2)[0, 0] / 127.5 - 1), 0.3))
            except ImageError as error:
                raise ImageError(error.reason, f"{file.name}: {error.detail}") from error
        return unit(found)

    made = lambda params: Embedder(images, lambda texts: unit([of_text(text) for text in texts]), params, made)
    return made({})


@pytest.fixture
def folder(tmp_path, picture):
    """Writes a folder for each class, with pictures of these colours."""
    def write(name: str, **classes) -> str:
        for label, found in classes.items():
            (tmp_path / name / label).mkdir(parents=True)
            for i, colour in enumerate(found):
                (tmp_path / name / label / f"{i}.png").write_bytes(picture(colour))
        return f"folder:{tmp_path / name}"
    return write
