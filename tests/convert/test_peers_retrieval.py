"""Retrieval on real photos and captions, query by query as with transformers' model on the same pixels and token ids."""
import json

import numpy as np

from cc_jax.convert.model import open_model
from cc_jax.data.transforms import view
from cc_jax.evals import retrieval

RES, LENGTH = 32, 32


def peer_of_random_weights(transformers):
    import torch

    tower = dict(hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2)
    config = transformers.SiglipConfig(
        vision_config=tower | dict(image_size=RES, patch_size=8),
        text_config=tower | dict(vocab_size=32_000, max_position_embeddings=LENGTH, projection_size=32))
    model = transformers.SiglipModel(config).eval()
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():            # norms and biases begin as ones and zeros, and the rest is small
            parameter.add_(0.2 * torch.randn_like(parameter))
    return model


def recalls(images, texts, owner, k):
    """Of each image, then of each caption, whether an own one is among the k most similar; by sorting."""
    table = images.astype(np.float64) @ texts.astype(np.float64).T
    by_image, by_text = np.argsort(-table, axis=1)[:, :k], np.argsort(-table, axis=0)[:k]
    return np.any(owner[by_image] == np.arange(len(images))[:, None], axis=1), np.any(by_text == owner, axis=0)


def test_retrieval_equals_that_of_transformers_query_by_query(tmp_path, transformers, test_data):
    import torch

    model = peer_of_random_weights(transformers)
    model.save_pretrained(tmp_path / "peer")
    captions = test_data / "flickr8k_small" / "captions.jsonl"
    run = open_model(str(tmp_path / "peer"), tokenizer=str(test_data / "tokenizer" / "spm32k.model"))
    result = retrieval.make(captions=str(captions))(run.embedder())

    items = [item for item in map(json.loads, captions.read_text().splitlines()) if item["split"] == "test"]
    pixels = np.stack([view((captions.parent / item["image"]).read_bytes(), RES) for item in items])
    tokens = run.tokenizer.encode([text for item in items for text in item["captions"]], LENGTH)
    pixels = pixels.transpose(0, 3, 1, 2) / np.float32(127.5) - 1
    with torch.no_grad():
        out = model(input_ids=torch.tensor(tokens), pixel_values=torch.tensor(pixels))
    owner = np.repeat(np.arange(len(items)), [len(item["captions"]) for item in items])
    for k in (1, 5, 10):
        to_text, to_image = recalls(out.image_embeds.numpy(), out.text_embeds.numpy(), owner, k)
        for way, expected in (("image_to_text", to_text), ("text_to_image", to_image)):
            outcomes = result.outcomes[f"{way}@{k}"]
            assert len(outcomes.ids) == {"image_to_text": 300, "text_to_image": 1500}[way]
            np.testing.assert_array_equal(outcomes.right, expected)
