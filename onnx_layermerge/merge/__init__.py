"""The algebra that makes one convolution out of many, and the proof of how equal it is.

A convolution is the affine map y[o,t] = b[o] + Σ_i Σ_u W[o,i,u] · x[i, s·t + u − p].  Such maps compose
and add:

    series     W[o,i,w] = Σ_m Σ_v W2[o,m,v] · W1[m,i,w − s1·v],   b = b2 + Σ_m Σ_v W2[o,m,v] · b1[m],
               k = k1 + s1(k2 − 1),   s = s1·s2,   p = p1 + s1·p2   (p per side)
    parallel   W = W1 + W2 on the union of the receptive fields,   b = b1 + b2  (equal stride, output size)
    identity   the Dirac: W = 1 for o = i, k = 1                   (a skip connection inside a block)
    norm       W ← a·W,  b ← a·(b − μ) + β,  a = γ/√(σ² + ε)

The series moves all padding to the front of the block.  Where a later convolution pads with zeros, the merged
one reads instead what the earlier ones give beyond the border; a ``Certificate`` says which outputs that
reaches: none (``exact``), a ring (``border``); ``lossy`` is said by the caller, who left something out.

Everything here is NumPy in float64, on any number n ≥ 1 of spatial dimensions, and knows nothing of ONNX but
the order of its attributes.  Shapes that cannot combine raise ``ValueError``: the caller's fault, never the
user's.  Source of series, Dirac and the choice of convolutions: LayerMerge (Kim, El Halabi, Ji, Song;
ICML 2024, arXiv 2406.12837); the certificate is this project's.
"""

from __future__ import annotations

from ._affine import AffineConv
from ._certificate import Certificate, Kind, Ring, parallel_certificate, series_certificate
from ._geometry import Geometry
from ._merged import MergedConv, merge_chain
from ._subset import keep_subset

__all__ = [
    "AffineConv",
    "Certificate",
    "Geometry",
    "Kind",
    "MergedConv",
    "Ring",
    "keep_subset",
    "merge_chain",
    "parallel_certificate",
    "series_certificate",
]
