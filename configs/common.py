"""What the experiment configs share: the parser of their argument, and the blocks most of them start from."""
import difflib

from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder


def parse_arg(arg: str | None, **defaults) -> ConfigDict:
    """"res=256,runlocal" -> ConfigDict of `defaults` with those values; each takes the type of its default.

    A bare name sets a boolean to True. Raises ValueError for a name that is not in `defaults` or a value that does not
    parse, naming what is allowed.
    """
    values = dict(defaults)
    for part in filter(None, (arg or "").split(",")):
        name, has_value, text = part.partition("=")
        if name not in defaults:
            near = difflib.get_close_matches(name, defaults, n=1, cutoff=0.5)
            hint = f"did you mean {near[0]!r}?" if near else "use one of them."
            raise ValueError(f"unknown config argument {name!r}; this config takes {', '.join(defaults)}: {hint}")
        values[name] = parse_value(name, text if has_value else "True", defaults[name])
    return ConfigDict(values)


def parse_value(name: str, text: str, default):
    """`text` as a value of the type of `default` (text where that is None)."""
    if isinstance(default, bool):
        if text.lower() not in ("true", "false", "1", "0"):
            raise ValueError(f"config argument {name}={text!r} is a switch; write {name}, {name}=True or {name}=False.")
        return text.lower() in ("true", "1")
    kind = str if default is None else type(default)
    try:
        return kind(text)
    except ValueError:
        raise ValueError(f"config argument {name}={text!r} is not of type {kind.__name__}, as its default "
                         f"{default!r}.") from None


def dataset(path: str) -> str:
    """Where a prepared dataset lies: the path itself; "shapes" is the embedded one, which a run makes for itself."""
    return "datasets/shapes" if path == "shapes" else path


# Where parameters live on a mesh (cc_jax/sharding.py): heads and hidden units over "tensor", what is large over "fsdp".
SHARDING = (
    (r".*/(query|key|value)/kernel", ("fsdp", "tensor", None)),
    (r".*/(query|key|value)/bias", ("tensor", None)),
    (r".*/out/kernel", ("tensor", None, "fsdp")),
    (r".*/Dense_0/kernel", ("fsdp", "tensor")),
    (r".*/Dense_0/bias", ("tensor",)),
    (r".*/Dense_1/kernel", ("tensor", "fsdp")),
    (r".*", "fsdp"))


def base(data: str, res: int) -> ConfigDict:
    """The blocks of a SigLIP B/16 pair trained from scratch; a config changes what differs."""
    c = ConfigDict()
    c.seed = 0
    c.data = dict(dir=dataset(data), split="train", res=res, flip=False, max_phrases=4, phrase_length=16, threads=16)
    c.data.captions = "random"  # or "first", or weights by position: see data/pipeline.py
    c.data.phrase_noise = dict(truncated=0.0, merged=0.0, verb_swallowed=0.0, random_span=0.0, dropped=0.0)
    c.model = dict(
        image=dict(variant="B/16", pool="map"),
        text=dict(variant="B", vocab_size=32_000, length=64, mask_padding=True),
        scan=True, remat="projections", dtype="bfloat16",
        attention="auto")         # or one of cc_jax/models/attention.py
    c.loss = dict(siglip=1.0, phrase=0.0, concept_attention=0.0)
    # Phrases are encoded 4 to a row of phrase_length, equal ones once; there is room for so many rows per image.
    c.concepts = dict(embedding="tower", rows=0.75, per_row=4, temperature=1.0, normaliser="texts", exchange="ring",
                      max_hops=placeholder(int), ramp=placeholder(str))
    c.optim = dict(name="adamw", lr=1e-3, b1=0.9, b2=0.95, wd=1e-4, clip_norm=1.0, warmup_steps=10_000,
                   schedule="cosine", max_scale=100.0, lr_mults=())
    c.mesh = dict(data=-1, fsdp=1, tensor=1)
    c.sharding = dict(rules=SHARDING, min_size=2**16)
    c.microbatches, c.checked, c.average = 1, False, placeholder(float)
    c.profile_steps = ()        # the first and the last step of a trace: see cc_jax/trace.py
    c.log_every = 50
    # A loss or gradient that is not finite: "stop", or "skip" the update. Losses that jump: see cc_jax/incidents.py.
    c.nonfinite, c.spikes = "stop", 8.0
    c.checkpoint = dict(every="2 %", keep=2, keep_every=placeholder(str), best=placeholder(str))
    c.evals = dict()
    # Evaluations before the first update, and scores that end the run: see cc_jax/evals/guard.py.
    c.evaluate_start, c.stop_if = False, ()
    return c


def retrieval(dir: str, every: str | int = "10 %", split: str = "test", limit: int = 1000) -> ConfigDict:
    """Image-text retrieval on the first `limit` images of a prepared dataset's split."""
    return ConfigDict(dict(type="retrieval", dir=dir, split=split, limit=limit, every=every))


def compositional(suite: str, every: str | int = "10 %", limit: int = 0) -> ConfigDict:
    """Compositional choice on a folder of SugarCrepe-format files with its images/; the first `limit` items of each
    category (0: all)."""
    return ConfigDict(dict(type="compositional", suite=suite, every=every, limit=limit))


def pointing(file: str, every: str | int = "10 %", limit: int = 0) -> ConfigDict:
    """Whether phrases look at their objects, on a file of phrases with boxes; its first `limit` images (0: all)."""
    return ConfigDict(dict(type="pointing", file=file, every=every, limit=limit))


def interpolated(of: ConfigDict, start: str, alphas=(0.25, 0.5, 0.75), every: str | int = "50 %") -> ConfigDict:
    """The evaluation `of` on weights between `start`, as `model_init`, and the run's."""
    return ConfigDict(dict(type="interpolated", of=of, start=start, alphas=alphas, every=every))


def shrink(c: ConfigDict, steps: int = 6, batch_size: int = 16) -> ConfigDict:
    """The same experiment on one small machine: a few steps of tiny towers at low resolution."""
    c.batch_size = batch_size
    for name in ("total_examples", "total_epochs"):
        if name in c:
            del c[name]
    c.total_steps = steps
    c.data.res, c.data.threads = 48, 2
    for tower, variant in ((c.model.image, "mu/16"), (c.model.text, "mu")):
        for size in ("width", "depth", "mlp_dim", "num_heads", "patch_size"):
            if size in tower:
                del tower[size]
        tower.variant = variant
    c.concepts.rows *= 4 / 3  # few phrases repeat in a small batch
    c.model.dtype = "float32"  # CPUs multiply bfloat16 slowly
    c.optim.warmup_steps = 2
    c.log_every = 1
    for block in c.evals.values():
        block.every = "50 %"
        block.get("of", block).limit = 32
    return c
