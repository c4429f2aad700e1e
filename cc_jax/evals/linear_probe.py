"""A linear probe: multinomial logistic regression on frozen image embeddings."""
from collections.abc import Callable

import numpy as np
from absl import logging
from jaxtyping import Bool, Float, Int
from scipy.optimize import minimize
from scipy.special import logsumexp

from cc_jax.config import ConfigError
from cc_jax.evals import labelled
from cc_jax.evals.embedder import Embedder
from cc_jax.evals.result import Result

L2S = (1e-2, 1e-3, 1e-4, 1e-5, 1e-6, 1e-7)      # tried, from the strongest, each from the one before
HELD_OUT = 5                                    # every fifth image of a class, to choose among them
ROWS = 4096                                     # multiplied at once
TOLERANCE, ROUGH = 1e-6, 1e-4                   # of the largest component of the gradient; ROUGH while choosing
MAX_STEPS = 2000


def make(train: str, test: str, l2: float | None = None, limit: int = 0) -> Callable[[Embedder], Result]:
    """The evaluator: a probe that is fitted to `train` and scored on `test`.

    Args:
      train, test: "folder:DIR" or "tfds:...": see `labelled`.
      l2: the weight of the penalty; None: that of L2S with the best accuracy on every fifth training image of each class,
        the stronger where equal.
      limit: so many images of each, evenly spaced; 0: all.
    Scores: as `labelled.result`. A tie is not a win.
    Raises: ConfigError.
    """
    learn, judge, places = open_pair(train, test, limit)
    if l2 is not None and not l2 > 0:
        raise ConfigError(f"l2={l2!r} of a linear probe; use a number above 0, or leave it out to have it chosen.")

    def evaluate(embedder: Embedder) -> Result:
        features, labels = labelled.embed(learn, embedder)
        chosen = choose_l2(features, labels, len(learn.classes)) if l2 is None else l2
        weights, bias = fit(features, labels, len(learn.classes), chosen)
        features, labels = labelled.embed(judge, embedder)
        return labelled.result(judge, labels, labelled.rank_of_label((features @ weights + bias)[:, places], labels))
    return evaluate


def open_pair(train: str, test: str, limit: int) -> tuple[labelled.Labelled, labelled.Labelled, Int[np.ndarray, " C"]]:
    """The images to learn from, those to judge by, and where the classes of these stand among those of the former."""
    learn, judge = (labelled.open_labelled(source).spaced(limit) for source in (train, test))
    if unlike := sorted(set(learn.classes) ^ set(judge.classes)):
        raise ConfigError(f"{train} and {test} differ in their classes: {unlike[0]!r} is in one only; give both the same.")
    return learn, judge, np.array([learn.classes.index(name) for name in judge.classes])


def choose_l2(features: Float[np.ndarray, "N D"], labels: Int[np.ndarray, " N"], classes: int) -> float:
    """The penalty of L2S whose probe, fitted to the other images, is right on most of those held out."""
    held = held_out(labels)
    if not held.any():
        raise ConfigError(f"no class has {HELD_OUT} images to learn from, so none can be held out to choose the probe's "
                          "penalty; give l2.")
    shares, start = [], None
    for l2 in L2S:
        start = fit(features[~held], labels[~held], classes, l2, start, ROUGH)
        scores = features[held] @ start[0] + start[1]
        shares.append(np.mean(labelled.rank_of_label(scores, labels[held]) < 1))
    return L2S[int(np.argmax(shares))]


def held_out(labels: Int[np.ndarray, " N"]) -> Bool[np.ndarray, " N"]:
    """Every fifth of each class."""
    order = np.argsort(labels, kind="stable")
    first = np.searchsorted(labels[order], labels[order])           # where each one's class begins
    held = np.zeros(len(labels), bool)
    held[order] = (np.arange(len(labels)) - first) % HELD_OUT == HELD_OUT - 1
    return held


def fit(
    features: Float[np.ndarray, "N D"], labels: Int[np.ndarray, " N"], classes: int, l2: float,
    start: tuple[np.ndarray, np.ndarray] | None = None, tolerance: float = TOLERANCE,
) -> tuple[Float[np.ndarray, "D C"], Float[np.ndarray, " C"]]:
    """The weights and biases that minimise, in float64,

        1/N sum_i ( logsumexp_c(x_i W_c + b_c) - x_i W_{y_i} - b_{y_i} ) + l2/2 |W|^2

    by L-BFGS (Liu and Nocedal 1989). The features are centred meanwhile, which leaves the optimum where it is, as biases
    have no penalty, and is reached sooner: embeddings have a large part in common. From 0, or from the probe `start`.
    """
    count, width = features.shape
    mean = features.mean(axis=0, dtype=np.float64)

    def loss(flat: np.ndarray) -> tuple[float, np.ndarray]:
        weights, bias = flat[classes:].reshape(width, classes), flat[:classes]
        value, gradient, bias_gradient = 0.5 * l2 * np.sum(weights**2), l2 * weights, np.zeros(classes)
        for i in range(0, count, ROWS):
            x, y = features[i:i + ROWS] - mean, labels[i:i + ROWS]
            logits, rows = x @ weights + bias, np.arange(len(y))
            total = logsumexp(logits, axis=1)
            value += np.sum(total - logits[rows, y]) / count
            error = np.exp(logits - total[:, None])
            error[rows, y] -= 1
            gradient += x.T @ error / count
            bias_gradient += error.sum(axis=0) / count
        return value, np.concatenate([bias_gradient, gradient.ravel()])

    weights, bias = start or (np.zeros((width, classes)), np.zeros(classes))
    found = minimize(loss, np.concatenate([bias + mean @ weights, weights.ravel()]), jac=True, method="L-BFGS-B",
                     options=dict(maxiter=MAX_STEPS, maxfun=2 * MAX_STEPS, gtol=tolerance, ftol=0, maxcor=20))
    if np.abs(found.jac).max() > 10 * tolerance:
        logging.warning("a linear probe with l2=%g stopped after %d steps, its gradient still at %.1e: %s", l2, found.nit,
                        np.abs(found.jac).max(), found.message)
    weights = found.x[classes:].reshape(width, classes)
    return weights, found.x[:classes] - mean @ weights
