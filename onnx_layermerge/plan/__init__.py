r"""Which replacements to take: the exact program over the line of layers, and its whole frontier.

**The paper's program.** A network is σ_L∘f_L∘…∘σ_1∘f_1. A block (i, j, k) lets one convolution of
kernel k stand for the layers i+1…j; T[i,j,k] is its latency and I[i,j,k] its importance. LayerMerge
(Kim, El Halabi, Ji, Song; ICML 2024, arXiv 2406.12837) cuts 0…L into consecutive blocks by

    maximize Σ I[i,j,k]   subject to   Σ T[i,j,k] ≤ T0,

exactly, with a table over (layer, latency budget).

**The program here.** A block (i, j, k) is a `Choice` on the half-open interval [i, j) of 0-based
positions: layer i+1 stands at position i. It carries

    s = T_old[i,j] − T_new[i,j,k]   the seconds it saves   (`saving_s`)
    d ≥ 0                           what it costs          (`loss`, e.g. the KL divergence of the outputs)

and with B ranging over the sets of pairwise disjoint blocks – a position that no block covers keeps
its layer, saves nothing and costs nothing –

    minimize Σ_{B} d   subject to   Σ_{B} s ≥ S,     S = base − T0.

**Why savings against a base, not Σ T.** The constraint is the paper's with the prediction
base + Σ_{B} (T_new − T_old) ≤ T0 in place of Σ T ≤ T0, where `base` is the measured whole network.
1. A network is not the sum of its parts: launches, reformats and warm caches belong to the whole. The
   error of a sum is there even when nothing is replaced; an error of base + Σ (new − old) comes only
   from the blocks that change, and what T_old and T_new have in common cancels. Over eight merged
   MobileNetV2 variants (onnxruntime, one CPU thread) sums of blocks timed alone were off by 16.0 % on
   average, sums of slopes by 2.9 %, base + Δ of slopes by 0.9 % – and base + Δ of blocks timed alone by
   25.4 %: both latencies in s must be slopes over copies.
2. Layers that stay need no entry in the table, nor does whatever lies between the chains: all chains of
   a network share one line and one budget, with no latency set aside for the rest.
3. The budget axis spans only what can be saved, so a step of it is finer than a step of the whole
   latency; and rounding s *down* is rounding the predicted latency *up*: a promise is never overshot.

The objective is the paper's up to a constant: a layer left alone adds I[l−1,l,k_l] = exp(0) = 1 to Σ I,
so d = (j − i) − I[i,j,k] makes Σ I = L − Σ_{B} d. Only a block scored above the j − i layers it
replaces would have d < 0; it is planned with d = 0, as the program asks for d ≥ 0.

**The table.** f[p][b] is the least loss of blocks inside [p, L) whose rounded saving is at least b:

    f[L][0] = 0,   f[L][b > 0] = ∞,
    f[p][b] = min( f[p+1][b],  min over choices c with start p of  d_c + f[stop_c][max(0, b − w_c)] ),
    w_c = ⌊s_c / unit⌋,   unit = min(greatest possible saving, S_max) / steps.

Every f[p][·] is one vector operation per choice, and f[0][·] holds all budgets at once: its steps are
the frontier. Positions where nothing starts are f[p+1] and are left out. The rounding can hide at most
one unit for each block: `Frontier.at(S)` costs no more than any solution of n blocks that saves
S + n·unit or more, up to S_max.

`rivals` draws distinct solutions for one S from several losses and from perturbed losses, because Σ d
only ranks plans; which of them is best is seen once they are built.
"""

from ._joint import Joint, improve, nearby
from ._line import Choice, Frontier, Solution
from ._program import solve
from ._rivals import Rival, rivals

__all__ = ["Choice", "Frontier", "Joint", "Rival", "Solution", "improve", "nearby", "rivals", "solve"]
