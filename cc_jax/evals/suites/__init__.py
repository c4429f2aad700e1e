"""Compositional suites: their formats by name, and where each lies in a folder of evaluation data."""
from cc_jax.evals.suites import aro, aro_order, json_lines, sugarcrepe, sugarcrepe_pp, valse, winoground
from cc_jax.evals.suites.look import suite

FORMATS = {
    "sugarcrepe": sugarcrepe.read, "sugarcrepe_pp": sugarcrepe_pp.read, "winoground": winoground.read, "aro": aro.read,
    "aro_order": aro_order.read, "valse": valse.read, "json_lines": json_lines.read}

COCO_2014 = tuple(f"{folder}{split}2014" for folder in ("coco/", "coco/images/", "") for split in ("val", "test", "train"))
COCO_2017 = tuple(f"{folder}{split}2017" for folder in ("coco/", "coco/images/", "") for split in ("val", "train"))

SUITES = (
    suite("sugarcrepe", FORMATS["sugarcrepe"], ("sugarcrepe", "sugar-crepe"), (*COCO_2017, "sugarcrepe_images"),
          "one right caption against one that adds, replaces or swaps an object, an attribute or a relation",
          "sugarcrepe/data/*.json; COCO's val2017 images"),
    suite("sugarcrepe_pp", FORMATS["sugarcrepe_pp"], ("sugarcrepe_pp", "scpp"), (*COCO_2017, "sugarcrepe_images"),
          "two captions of one meaning against one of nearly the same words: by the image (itt), by texts alone (tot)",
          "scpp/data/*.json; COCO's val2017 images"),
    suite("winoground", FORMATS["winoground"], ("winoground",), (),
          "two images and two captions of the same words: text, image and group score",
          "winoground/data/examples.jsonl, winoground/data/images/*.png"),
    suite("aro", FORMATS["aro"], ("aro", "aro/data"), (),
          "relations (in space, and others) and attributes of two objects against their exchange",
          "aro/visual_genome_relation.json, aro/visual_genome_attribution.json, aro/images/*.jpg"),
    suite("aro_order", FORMATS["aro_order"], ("aro_order", "aro"), ("coco", "flickr30k", "flickr30k-images", *COCO_2014),
          "captions against their own words in other orders",
          "aro_order/coco_karpathy_test.json, aro_order/flickr30k_test.json; COCO's val2014 and Flickr30k's images"),
    suite("valse", FORMATS["valse"], ("valse", "VALSE"),
          (*COCO_2014, *COCO_2017, "visual7w", "swig", "images_512", "VisualDialog_val2018", "sugarcrepe_images"),
          "captions against foils: existence, plurals, counting, spatial relations, actions, coreference, nouns",
          "valse/data/*.json; the images of COCO, Visual7W, SWiG and VisDial"),
)
