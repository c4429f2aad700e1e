"""Small towers on your own captioned photos, with the concept losses or without: a quarter of an hour on a CPU.

python -m cc_jax.main --config configs/photos_cc.py:data=datasets/photos --workdir runs/photos
"""
from configs import common


def get_config(arg=None):
    arg = common.parse_arg(arg, data="datasets/photos", steps=1200, batch_size=128, concepts=True, runlocal=False)
    c = common.base(arg.data, res=64)
    c.batch_size, c.total_steps = arg.batch_size, arg.steps

    c.data.crop, c.data.flip, c.data.max_phrases, c.data.phrase_length, c.data.threads = 0.5, True, 3, 16, 4
    tower = dict(width=96, depth=2, mlp_dim=384, num_heads=4)
    c.model.image = dict(patch_size=(8, 8), pool="map", **tower)  # of few photos, colours and textures are what is learned
    c.model.text = dict(vocab_size=4096, length=32, mask_padding=True, **tower)
    c.model.scan, c.model.remat, c.model.dtype = False, "none", "float32"
    c.model.temperature_init, c.model.bias_init = 15.0, -5.0  # as in shapes_cc.py: the run is short
    if arg.concepts:
        c.loss = dict(siglip=1.0, phrase=1.0, concept_attention=0.01)
    c.optim = dict(name="adamw", lr=1e-3, b1=0.9, b2=0.98, wd=0.5, clip_norm=1.0, warmup_steps=50, schedule="cosine",
                   max_scale=100.0)

    c.log_every = 10
    c.checkpoint.every = "25 %"
    c.evals.retrieval = common.retrieval(c.data.dir)
    return common.shrink(c) if arg.runlocal else c
