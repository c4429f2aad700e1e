"""The embedded default: small towers learn drawn scenes in minutes on a laptop, with the concept losses or without.

python -m cc_jax.main --config configs/shapes_cc.py --workdir runs/concepts
python -m cc_jax.main --config configs/shapes_cc.py:concepts=False --workdir runs/siglip

`counting` also evaluates counting, for data prepared with --source shapes:counts=0.2, which shows it.
`noise`: the share of phrases with a parsing error, the kinds of `cc_jax/data/phrase_noise.py` equally often.
"""
from configs import common


def get_config(arg=None):
    arg = common.parse_arg(arg, data="shapes", steps=1200, batch_size=64, concepts=True, seed=0, noise=0.0,
                           counting=False, runlocal=False)
    c = common.base(arg.data, res=48)
    c.seed = arg.seed
    c.batch_size, c.total_steps = arg.batch_size, arg.steps

    c.data.max_phrases, c.data.phrase_length, c.data.threads = 3, 16, 2
    c.data.phrase_noise = {kind: arg.noise / len(c.data.phrase_noise) for kind in c.data.phrase_noise}
    tower = dict(width=128, mlp_dim=512, num_heads=4)
    c.model.image = dict(patch_size=(16, 16), depth=3, pool="map", **tower)
    c.model.text = dict(depth=2, vocab_size=512, length=32, mask_padding=True, **tower)
    c.model.scan, c.model.remat, c.model.dtype = False, "none", "float32"
    # A few hundred steps can't move them from SigLIP's 10 and -10: nearer to where they end, learning starts at once.
    c.model.temperature_init, c.model.bias_init = 15.0, -5.0
    if arg.concepts:
        c.loss = dict(siglip=1.0, phrase=1.0, concept_attention=0.01)
    c.optim = dict(name="adamw", lr=1e-3, b1=0.9, b2=0.98, wd=1e-4, clip_norm=1.0, warmup_steps=50, schedule="cosine",
                   max_scale=100.0)

    c.log_every = 10
    c.checkpoint.every = "25 %"
    c.evals.retrieval = common.retrieval(c.data.dir)
    c.evals.compositional = common.compositional(f"{c.data.dir}/suite")
    c.evals.pointing = common.pointing(f"{c.data.dir}/suite/pointing.jsonl")
    if arg.counting:
        c.evals.counting = common.compositional(f"{c.data.dir}/counting")
    return common.shrink(c) if arg.runlocal else c
