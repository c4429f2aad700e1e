"""Package metadata: `pip install -e .[dev]`; accelerators with `.[tpu]` or `.[cuda]`."""
from setuptools import find_packages, setup

# What weights are compared with in tests. torch is pinned to its CPU build; newer ones bring CUDA libraries by the gigabyte.
PEERS = ["torch==2.13.0", "transformers>=5.20", "open_clip_torch>=3.3"]

setup(
    name="cc_jax",
    version="0.1.0",
    description="Concept-centric SigLIP pretraining in JAX: phrases and what they attend to, aligned with images.",
    license="Apache-2.0",
    python_requires=">=3.11",
    packages=find_packages(include=["cc_jax", "cc_jax.*"]),
    package_data={"cc_jax.data": ["tagger/*.json"], "cc_jax.evals": ["class_names/*"]},
    install_requires=[
        "absl-py>=2.1",
        "array-record>=0.8.1",
        "etils[epath]>=1.12",
        "flax>=0.12",
        "fsspec[http]>=2024.6",
        "grain>=0.2.12",
        "jax>=0.10",
        "jaxtyping>=0.3",
        "matplotlib>=3.9",
        "ml_dtypes>=0.5",
        "ml_collections>=1.0",
        "nltk>=3.9",
        "numpy>=2.0",
        "opencv-python-headless>=4.11",
        "optax>=0.2.8",
        "orbax-checkpoint>=0.11.25",
        "pillow>=11.0",
        "scipy>=1.13",
        "sentencepiece>=0.2",
        "tensorboardX>=2.6",
        "tensorflow-datasets>=4.9.9",
        "tokenizers>=0.21",
    ],
    extras_require={
        "tpu": ["jax[tpu]>=0.10", "etils[epath-gcs]>=1.12"],
        "cuda": ["jax[cuda13]>=0.10"],
        "prepare": ["apache-beam>=2.70", "gcsfs>=2026.4", "pyarrow>=18.0", "s3fs>=2026.4"],
        "spacy": ["spacy>=3.7"],
        "peers": PEERS,
        "dev": [
            *PEERS,
            "apache-beam>=2.70",
            "hypothesis>=6.100",
            "ipykernel>=6.29",
            "nbclient>=0.10",
            "nbformat>=5.10",
            "pyarrow>=18.0",
            "pytest>=9.0",
            "pytest-xdist>=3.6",
            "ruff>=0.12",
            "safetensors>=0.5",
        ],
    },
)
