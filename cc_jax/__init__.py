"""SigLIP-style image-text pretraining in JAX, with concepts. From Python: `model = cc_jax.load("runs/try")`."""


def __getattr__(name: str):
    if name == "load":      # imported when asked for: it brings JAX, which preparation does without
        from cc_jax.use import load
        return load
    raise AttributeError(f"module 'cc_jax' has no attribute {name!r}; see cc_jax.load.")
