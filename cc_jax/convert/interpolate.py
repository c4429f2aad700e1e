"""Weights between two models: part of what was learned, for less of what was forgotten."""
import dataclasses

import numpy as np

from cc_jax.convert.weights import Lazy, Weights, WeightsError, require, shapes_of


def interpolate(start: Weights, end: Weights, alpha: float) -> Weights:
    """(1 - alpha) start + alpha end, parameter by parameter, in float32 (Wortsman et al. 2022, arXiv 2109.01903).

    Raises: WeightsError where they are not of one architecture, read text differently, or alpha is not from 0 to 1.
    """
    if not 0 <= alpha <= 1:
        raise WeightsError(f"alpha={alpha}; use a number from 0, the first model, to 1, the second.")
    require(shapes_of(start.params), shapes_of(end.params), start.where, end.where)
    if bool(start.masks_padding) != bool(end.masks_padding):
        raise WeightsError(f"the text tower of one of {start.where} and {end.where} hides its padding, the other's does "
                           "not; what lies between them would do neither.")
    for name in start.tokenizer.keys() & end.tokenizer.keys():
        if start.tokenizer[name] != end.tokenizer[name]:
            raise WeightsError(f"{start.where} and {end.where} have different tokenizers ({name}): the same text means "
                               "other ids to them.")

    def between(name: str) -> Lazy:
        ends = start.params[name], end.params[name]
        mix = lambda: sum(np.float32(share) * lazy.read().astype(np.float32)
                          for share, lazy in zip((1 - alpha, alpha), ends, strict=True) if share)
        return Lazy(ends[0].shape, np.dtype(np.float32), mix)
    return dataclasses.replace(
        end, params={name: between(name) for name in end.params}, tokenizer=end.tokenizer or start.tokenizer,
        where=f"{alpha:g} of the way from {start.where} to {end.where}")
