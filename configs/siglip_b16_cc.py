"""SigLIP ViT-B/16 from scratch with the concept losses (arXiv 2603.25722).

python -m cc_jax.main --config configs/siglip_b16_cc.py:data=datasets/cc12m --workdir gs://bucket/run
python -m cc_jax.main --config configs/siglip_b16_cc.py:data=shapes,runlocal --workdir runs/try   # minutes, on a CPU
"""
from configs import siglip_b16


def get_config(arg=None):
    c = siglip_b16.get_config(arg)

    c.loss.phrase = 1.0
    c.loss.concept_attention = 0.01
    return c
