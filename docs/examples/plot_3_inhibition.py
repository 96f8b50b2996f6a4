"""What inhibition must be like
============================

How far the circuit's own end point lies above the paper's, and how much of the mean weights is
left there, over the strength of inhibition: for the circuit's rule, and for one that is gated by
inhibition. Settled rates (lines), and the averages over presentations of 150 ms with their
transients (dashed).
"""

import matplotlib.pyplot as plt
import numpy as np
from brian2 import ms

import circuitsim as cs
from circuitsim.plots.style import rule_style

rng = np.random.default_rng(0)
w_init = 1 + rng.standard_normal((100, 9))
alphas = np.geomspace(1, 100, 25)

figure, (left, right) = plt.subplots(1, 2, figsize=(7, 3.3), layout="constrained")
for rule in ("circuit", "inhibition_gated"):
    colour, _ = rule_style(rule)
    for presentation, dash in ((None, "-"), (150 * ms, "--")):
        weights = [
            cs.theory.fixed_point(w_init, 0.01, rule, alpha, presentation=presentation)
            for alpha in alphas
        ]
        kept = [cs.measures.mean_weight_kept(w, w_init) for w in weights]
        left.loglog(alphas, cs.measures.inverse_snr_w(weights), dash, color=colour)
        right.semilogx(alphas, kept, dash, color=colour, label=rule if dash == "-" else None)
left.set(xlabel="strength of inhibition, alpha", ylabel="inverse SNR of the weights")
right.set(xlabel="strength of inhibition, alpha", ylabel="share of the mean kept", ylim=(0, 1.05))
figure.legend(loc="outside lower center", ncols=2)
plt.show()
