"""Finds a suite's published files, and the images they need, under a folder of evaluation data."""
from collections.abc import Callable, Sequence
from pathlib import Path

from cc_jax.config import ConfigError
from cc_jax.evals.suite import Found, Suite
from cc_jax.evals.suites import files
from cc_jax.evals.suites.items import Items, NoSuite
from cc_jax.progress import grouped


def suite(
    name: str, read: Callable[[str], Items], homes: Sequence[str], images: Sequence[str], measures: str, needs: str,
) -> Suite:
    """The suite whose files lie in the first of `homes` (or its folder `data`) that holds some, and its images there or in
    any of `images`; all are relative to the folder of evaluation data."""
    def look(data: Path) -> Found | None:
        folders = [str(path) for image in (*images, *(f"{home}/images" for home in homes), "images")
                   if (path := Path(data) / image).is_dir()]
        for home in (Path(data) / home / part for home in homes for part in ("", "data")):
            try:
                line = says(read(str(home)), str(home), folders)
            except NoSuite:
                continue
            except ConfigError as error:        # it is there: evaluating it says the same
                line = f"broken: {error}"
            return Found({"type": "compositional", "format": name, "suite": str(home), "images": folders}, line)
        return None
    return Suite(name, measures, needs, look)


def says(items: Items, home: str, folders: Sequence[str]) -> str:
    """What was found, in a line: "7 511 items, 264 with their images (60 of 1 561)"."""
    needed = dict.fromkeys(picture.file for item in items.items for picture in item.pictures)
    there = files.find(list(needed), files.image_folders(home, folders))
    records = {item.id for item in items.items}
    without = {item.id for item in items.items if any(picture.file not in there for picture in item.pictures)}
    left_out = "".join(f"; left out: {grouped(count)} {reason}" for reason, count in items.left_out.items() if count)
    return (f"{grouped(len(records))} items, {grouped(len(records - without))} with their images "
            f"({grouped(len(there))} of {grouped(len(needed))}){left_out}")
