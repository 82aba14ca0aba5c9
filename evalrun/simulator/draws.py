"""Where the simulator's chance comes from: hashes of seed and request, never a generator with a state.

Enters: the seed, the canonical body, the sample's id, the repeat. Leaves: numbers that are the same for the same input,
in whatever order requests arrive. The profile's settings are not hashed (its name is, as the body's `model`), so that a
changed accuracy turns only the answers that it must turn, and a changed latency none.

Right or wrong is a Gaussian copula. Each sample has a difficulty z_s ~ N(0, 1), the same for every model, prompt and
repeat; each request draws z_r ~ N(0, 1) of its own. With u = Φ(√ρ·z_s + √(1−ρ)·z_r), ρ = 0.5, the answer is right if
u < accuracy. u is uniform, so that the chance of a right answer is exactly `accuracy`; hard samples are hard for all
models, as they are for real ones, which is what makes paired comparisons sharper than unpaired ones.
"""

import math
from hashlib import blake2b
from statistics import NormalDist
from typing import Final

DIFFICULTY_CORRELATION: Final = 0.5
"""ρ: correlation of the latent values of two requests about the same sample."""

MAX_LATENCY_S: Final = 3600.0
"""Longest latency drawn, whatever the spread."""

_NORMAL = NormalDist()
_SHARED_SHARE = math.sqrt(DIFFICULTY_CORRELATION)
_OWN_SHARE = math.sqrt(1 - DIFFICULTY_CORRELATION)


def digest_body(canonical_body: bytes) -> bytes:
    """Return the 16-byte digest that names a request body."""
    return blake2b(canonical_body, digest_size=16, person=b"simulator-body").digest()


def digest_request(seed: int, body_digest: bytes, sample: str, repeat: int) -> bytes:
    """Return the 32-byte digest that every draw of one request starts from."""
    sample_bytes = sample.encode("utf-8", "surrogatepass")
    material = b"%d|%d|%b|%b" % (seed, repeat, body_digest, sample_bytes)
    return blake2b(material, digest_size=32, person=b"simulator-req").digest()


def draw_uniform(digest: bytes, purpose: str, index: int = 0) -> float:
    """Return a number in (0, 1) for one purpose of a request; `index` tells choices and attempts apart."""
    return _to_uniform(blake2b(b"%b|%d|%b" % (digest, index, purpose.encode()), digest_size=8).digest())


def draw_is_right(seed: int, sample: str, digest: bytes, *, accuracy: float, index: int = 0) -> bool:
    """Tell whether a choice says the right answer: true with probability `accuracy`, correlated within a sample."""
    difficulty = _NORMAL.inv_cdf(_draw_difficulty(seed, sample))
    own = _NORMAL.inv_cdf(draw_uniform(digest, "right", index))
    latent = _SHARED_SHARE * difficulty + _OWN_SHARE * own
    # The last comparison is strict, and Φ may round to 1.0: accuracy 1 must be always right.
    return accuracy >= 1 or 0.5 * math.erfc(-latent / math.sqrt(2)) < accuracy


def draw_latency_s(digest: bytes, *, median_ms: float, spread: float) -> float:
    """Return a log-normal latency in seconds; exactly the median when the spread is 0."""
    if spread == 0 or median_ms == 0:
        return median_ms / 1000
    z = _NORMAL.inv_cdf(draw_uniform(digest, "latency"))
    return min(median_ms / 1000 * math.exp(spread * z), MAX_LATENCY_S)


def _draw_difficulty(seed: int, sample: str) -> float:
    material = b"%d|%b" % (seed, sample.encode("utf-8", "surrogatepass"))
    return _to_uniform(blake2b(material, digest_size=8, person=b"simulator-item").digest())


def _to_uniform(eight_bytes: bytes) -> float:
    """Map 8 bytes to the middle of one of 2⁵² equal steps of (0, 1): every value is exact and none is 0 or 1."""
    return ((int.from_bytes(eight_bytes) >> 12) + 0.5) / 2**52
