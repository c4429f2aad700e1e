"""Labelled images, for classification: a folder for each class, or a TFDS dataset prepared as ArrayRecord.

    folder:imagenet/val                                 imagenet/val/n01440764/*.JPEG, ...
    tfds:cifar10,split=test         tfds:imagenet2012:5.1.0,split=validation,data_dir=gs://bucket/tfds
    tfds:datasets/pets/4.0.0,split=test,image=image,label=label

A folder holds images and nothing else but hidden files: no image is passed over without a word.
"""
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from jaxtyping import Float, Int

from cc_jax.config import ConfigError, DatasetError
from cc_jax.data.readers import options
from cc_jax.data.readers.folder import IMAGES
from cc_jax.evals.embedder import Embedder, ImageFile, Sized
from cc_jax.evals.result import Outcomes, Result

FORMS = "folder:DIR or tfds:NAME_OR_DIR,split=SPLIT[,image=FEATURE,label=FEATURE,data_dir=DIR]"
LABEL_FEATURES = ("label", "labels", "fine_label")
TOP = 5
MAX_CLASSES = 2**20


@dataclass(frozen=True)
class Labelled:
    """Images and the class of each, an index into `classes`."""
    source: str
    classes: Sequence[str]                              # names of folders, or TFDS's of labels
    ids: Sequence[str]                                  # "n01440764/ILSVRC2012_val_00000293.JPEG", or "test:17"
    read: Callable[[int], tuple[ImageFile, int]]        # an image by its index. Raises: DatasetError

    def spaced(self, count: int) -> "Labelled":
        """So many of the images, evenly spaced; all where `count` is 0 or there are no more."""
        if not count or count >= len(self.ids):
            return self
        chosen = np.arange(count) * len(self.ids) // count
        return replace(self, ids=[self.ids[i] for i in chosen], read=lambda i: self.read(int(chosen[i])))


def open_labelled(source: str) -> Labelled:
    """The images of "folder:DIR" or "tfds:...". Raises: ConfigError."""
    kind, _, argument = source.partition(":")
    if kind not in ("folder", "tfds") or not argument:
        raise ConfigError(f"labelled images {source!r} are not known; use {FORMS}.")
    try:
        return _open_folder(source, Path(argument)) if kind == "folder" else _open_tfds(source, argument)
    except (ValueError, FileNotFoundError) as error:
        raise ConfigError(str(error)) from error


def embed(images: Labelled, embedder: Embedder) -> tuple[Float[np.ndarray, "N D"], Int[np.ndarray, " N"]]:
    """(embeddings, labels). Raises: ImageError, DatasetError, which name the image."""
    labels = []

    def files():
        for i in range(len(images.ids)):
            file, label = images.read(i)
            labels.append(label)
            yield file

    return embedder.images(Sized(len(images.ids), files())), np.array(labels)


def result(images: Labelled, labels: Int[np.ndarray, " N"], rank: Int[np.ndarray, " N"]) -> Result:
    """"top1", "top5" (of more than five classes) by image, and "mean_per_class", whose items are classes: top1 of each.

    Args: rank: how many classes come before an image's own.
    """
    count = len(images.classes)
    outcomes = {f"top{k}": Outcomes(images.ids, rank < k, k / count) for k in (1, TOP) if k == 1 or k < count}
    present = np.unique(labels)
    outcomes["mean_per_class"] = Outcomes(
        [images.classes[c] for c in present], [np.mean(rank[labels == c] < 1) for c in present], 1 / count)
    return Result(outcomes, len(images.ids), len(images.ids))


def rank_of_label(scores: Float[np.ndarray, "N C"], labels: Int[np.ndarray, " N"]) -> Int[np.ndarray, " N"]:
    """How many other classes score as high as the label's or higher; what is not a number does, too."""
    own = scores[np.arange(len(labels)), labels]
    return np.maximum(np.count_nonzero(~(scores < own[:, None]), axis=1) - 1, 0)


def _open_folder(source: str, folder: Path) -> Labelled:
    folder = folder.expanduser()
    if not folder.is_dir():
        raise ConfigError(f"{source}: no such folder; give one that holds a folder for each class.")
    visible = lambda place: sorted(path for path in place.iterdir() if not path.name.startswith("."))
    classes = [path for path in visible(folder) if path.is_dir()]
    loose = [path.name for path in visible(folder) if path.suffix.lower() in IMAGES and not path.is_dir()]
    if loose:
        raise ConfigError(f"{source}: {len(loose)} images are in no class's folder, such as {loose[0]!r}; put each in one.")
    if not classes:
        raise ConfigError(f"{source}: it holds no folders; give one that holds a folder for each class.")
    files, labels = [], []
    for label, place in enumerate(classes):
        found = visible(place)
        if not found:
            raise ConfigError(f"{source}: the folder {place.name!r} is empty; put its images there, or remove it.")
        for path in found:
            if path.suffix.lower() not in IMAGES or path.is_dir():
                raise ConfigError(f"{source}: {place.name}/{path.name} is no image by its name; a class's folder holds only "
                                  f"files {', '.join(IMAGES)}, so move it away.")
        files += found
        labels += [label] * len(found)

    def read(i: int) -> tuple[ImageFile, int]:
        return ImageFile(files[i].read_bytes(), str(files[i])), labels[i]

    return Labelled(source, [place.name for place in classes], [f"{path.parent.name}/{path.name}" for path in files], read)


def _open_tfds(source: str, argument: str) -> Labelled:
    import tensorflow_datasets as tfds  # takes a second: folders do without

    from cc_jax.data.readers.tfds import IMAGE_FEATURES, open_prepared

    name, given = options.parse_argument("tfds", argument, ("split", "image", "label", "data_dir"))
    builder = open_prepared(name, given.get("data_dir"))
    info, split = builder.info, given.get("split")
    if split not in info.splits:
        raise ConfigError(f"{source}: no split {split!r}; name one with split=SPLIT: {', '.join(info.splits)}.")
    if not (size := info.splits[split].num_examples):
        raise ConfigError(f"{source}: split {split!r} has no images; name another.")
    image = options.choose(source, "image", given.get("image"), IMAGE_FEATURES, dict(info.features))
    label = options.choose(source, "label", given.get("label"), LABEL_FEATURES, dict(info.features))
    for feature, kind in ((image, tfds.features.Image), (label, tfds.features.ClassLabel)):
        if not isinstance(info.features[feature], kind):
            raise ConfigError(f"{source}: feature {feature!r} is {type(info.features[feature]).__name__}, and must be "
                              f"{kind.__name__}; name another.")
    features = tfds.features.FeaturesDict({name: info.features[name] for name in (image, label)})   # no other is decoded
    count = features[label].num_classes
    if not isinstance(count, int) or not 0 < count <= MAX_CLASSES:
        raise ConfigError(f"{source}: feature {label!r} has {count!r} classes; there must be 1 to {MAX_CLASSES}.")
    classes = features[label].names
    records = builder.as_data_source(split, deserialize_method=tfds.decode.DeserializeMethod.RAW_BYTES)

    def read(i: int) -> tuple[ImageFile, int]:
        key = f"{info.full_name}/{split}:{i}"
        try:
            record = features.deserialize_example_np(records[i], decoders={image: tfds.decode.SkipDecoding()})
            data, number = ImageFile(record[image], key), int(record[label])
        except Exception as error:      # array_record raises many things for broken files
            raise DatasetError(f"record {key} can't be read: {type(error).__name__}: {error}"[:500]) from error
        if not 0 <= number < len(classes):
            raise DatasetError(f"record {key} has the label {number}, and labels are 0 to {len(classes) - 1}; evaluate on a "
                               "split that is labelled.")
        return data, number

    return Labelled(source, classes, [f"{split}:{i}" for i in range(size)], read)
