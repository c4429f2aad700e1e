"""Plain SigLIP ViT-B/16 from scratch (arXiv 2303.15343): the baseline of `siglip_b16_cc.py`.

python -m cc_jax.main --config configs/siglip_b16.py:data=datasets/cc12m --workdir gs://bucket/run
python -m cc_jax.main --config configs/siglip_b16.py:data=shapes,runlocal --workdir runs/try   # minutes, on a CPU

`eval` names the dataset with the test split to retrieve in; by default the one that is trained on.
"""
from configs import common


def get_config(arg=None):
    arg = common.parse_arg(arg, res=224, batch_size=32_768, data="datasets/cc12m", eval="", runlocal=False)
    c = common.base(arg.data, arg.res)

    c.batch_size = arg.batch_size
    c.total_examples = 3_000_000_000
    c.evals.retrieval = common.retrieval(common.dataset(arg.eval or arg.data))
    return common.shrink(c) if arg.runlocal else c
