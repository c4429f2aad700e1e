"""SugarCrepe by a model of transformers and by the same weights here: the same items are right."""
import json

import numpy as np
import pytest

from cc_jax.convert import formats
from cc_jax.data import transforms
from cc_jax.data.tokenizer import Tokenizer
from cc_jax.evals import compositional, embed
from cc_jax.models.two_towers import TwoTowers
from cc_jax.sharding import make_mesh
from cc_jax.step import abstract_params

RES, LENGTH, WIDTH = 64, 64, 48
TOWER = dict(hidden_size=WIDTH, intermediate_size=96, num_hidden_layers=2, num_attention_heads=3)


@pytest.fixture(scope="module")
def peer():
    """A small SiglipModel, every parameter random and far from its start, so that embeddings differ by much."""
    torch = pytest.importorskip("torch", reason="needs the peers: pip install -e '.[peers]'")
    try:        # torchvision beside a CPU-only PyTorch lacks two operators that it declares nonetheless
        library = torch.library.Library("torchvision", "DEF")
        for name in ("nms", "qnms"):
            library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    except RuntimeError:
        pass    # they are there
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(3)
    model = transformers.SiglipModel(transformers.SiglipConfig(
        vision_config=TOWER | dict(image_size=RES, patch_size=16),
        text_config=TOWER | dict(vocab_size=32_000, max_position_embeddings=LENGTH, projection_size=WIDTH)))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    yield model.eval()     # not returned: the library holds its operators only while it lives


def test_the_same_items_are_right_as_by_transformers(peer, tmp_path, test_data):
    """The 264 items whose photo is at hand. The peer computes in double precision, from the same pixels and tokens."""
    import torch

    peer.save_pretrained(tmp_path / "peer")
    tower = dict(width=WIDTH, depth=2, mlp_dim=96, num_heads=3)
    model = TwoTowers(image=tower | dict(patch_size=(16, 16)),
                      text=tower | dict(vocab_size=32_000, length=LENGTH, num_classes=WIDTH))
    params, _ = formats.load(str(tmp_path / "peer"), abstract_params(model, RES))
    tokenizer = Tokenizer.load(test_data / "tokenizer" / "spm32k.model")
    embedder = embed.make(model, tokenizer, RES, make_mesh({"data": -1}))(params)
    photos = test_data / "sugarcrepe_images"
    found = compositional.make(str(test_data / "sugarcrepe"), str(photos), partial=True)(embedder)
    assert (found.items, found.expected) == (264, 7511)

    exact = peer.double()
    for category, outcomes in found.outcomes.items():
        records = json.loads((test_data / "sugarcrepe" / f"{category}.json").read_text())
        records = {id: record for id, record in records.items() if (photos / record["filename"]).is_file()}
        images = np.stack([transforms.load((photos / record["filename"]).read_bytes(), RES) for record in records.values()])
        text = lambda key, of: torch.tensor(tokenizer.encode([record[key] for record in of.values()], LENGTH))
        pixels = torch.tensor(images.transpose(0, 3, 1, 2).astype(np.float64) / 127.5 - 1)
        with torch.no_grad():
            image, right, wrong = (
                torch.nn.functional.normalize(getattr(each, "pooler_output", each), dim=-1) for each in (
                    exact.get_image_features(pixel_values=pixels), exact.get_text_features(text("caption", records)),
                    exact.get_text_features(text("negative_caption", records))))
        margin = ((right - wrong) * image).sum(-1).numpy()
        assert np.abs(margin).min() > 1e-6, "an item that rounding decides: take other weights"
        assert list(outcomes.ids) == [f"{category}/{id}" for id in records]
        np.testing.assert_array_equal(outcomes.right, margin > 0)
    assert 0.3 < np.mean(np.concatenate([outcomes.right for outcomes in found.outcomes.values()])) < 0.7
