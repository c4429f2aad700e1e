"""LiT (Zhai et al. 2022, arXiv 2111.07991): a text tower learns to read for a released image tower that stays as it is.

python -m cc_jax.main --config configs/siglip_lit.py:data=datasets/cc12m --workdir runs/lit
python -m cc_jax.main --config configs/siglip_lit.py:data=shapes,runlocal --workdir runs/try
"""
from configs import common


def get_config(arg=None):
    arg = common.parse_arg(arg, res=224, batch_size=4096, data="datasets/cc12m", eval="", concepts=False, runlocal=False,
                           init="SigLIP B/16 224")
    c = common.base(arg.data, arg.res)
    c.model_init, c.dont_load = arg.init, ("txt/.*", "t", "b")
    c.batch_size, c.total_epochs = arg.batch_size, 10
    c.optim.lr_mults = (("img/.*", 0.0),)
    if arg.concepts:  # of the two concept losses the tokens' can't change a frozen tower, but it does teach the text tower
        c.loss = dict(siglip=1.0, phrase=1.0, concept_attention=0.01, distill=0.0)
    c.evals.retrieval = common.retrieval(common.dataset(arg.eval or arg.data))
    if arg.runlocal:  # a tiny tower has no released weights
        c = common.shrink(c)
        del c.model_init, c.dont_load
    return c
