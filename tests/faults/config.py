"""The embedded config as small as it gets: what goes wrong around a step does not depend on what is learned in it."""
from configs import shapes_cc

STEPS, SAVE_EVERY, EVALUATE_EVERY = 24, 4, 8


def get_config(arg=None):
    c = shapes_cc.get_config(f"data={arg},concepts=False,runlocal")
    c.total_steps, c.batch_size = STEPS, 8
    c.model.image.update(variant="mu/16", depth=1)
    c.model.text.update(variant="mu", depth=1)
    del c.checkpoint
    c.checkpoint = dict(every=SAVE_EVERY, keep=2, retries=(0.1, 0.1, 0.1, 0.1, 0.1))
    c.data.retries, c.data.timeout = (0.1, 0.1), 60.0
    retrieval = c.evals.retrieval.to_dict()
    del c.evals
    c.evals = {"retrieval": retrieval | dict(limit=8, every=EVALUATE_EVERY)}
    return c
