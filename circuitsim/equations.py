"""What Brian2 networks are built from besides the circuit's equations (`circuitsim.dynamics`).

Symbols as in the paper, with ``r_inh`` for the interneuron's rate, ``z`` for the drive w.x, ``m``
for heavy-ball momentum and ``x`` for an input. ``_pre`` and ``_post`` are Brian2's suffixes.
"""

DRIVE = "z_post = w*x_pre : 1 (summed)"
MEAN_RATE = "r_mean_post = r_pre/pool_size : 1 (summed)"
WEIGHTED_RATE = "r_mean_post = weight*r_pre : 1 (summed)"
INHIBITION = "r_inh_post = weight*value_pre : 1 (summed)"
MEAN_DRIVE = "z_mean_post = z_pre/pool_size : 1 (summed)"

# A sheet of inputs, whose cells of equal phase are connected.
CELL = """
dx/dt = (-x + gain*x_mean + (1 - gain)*drive)/tau_sheet : 1
x_mean : 1
tau_sheet : second (shared, constant)
"""
LATERAL = "x_mean_post = x_pre/cells_post : 1 (summed)"

# What every synapse does at every step (or once a presentation): heavy-ball descent.
LEARN = """
m = momentum_post*m - rate_post*(signal_post*x_pre + gamma_post*(w - w_init))
w = w + m
"""

CLIP = "w = clip(w, lowest_post, highest_post)\n"

# Moments of the weights over the pool, for the measures.
MOMENTS = """
w_mean_pre = w/pool_size : 1 (summed)
w_var_pre = (w - w_mean_pre)**2/pool_size : 1 (summed)
"""

# The same, reduced. While x stays the same, a synapse moves along x by an amount that is its
# neuron's alone, and its deviation from w_init and its momentum decay by factors that are its
# circuit's alone:
#     w - w_init = dev_kept (w - w_init)_0 + dev_from_m m_0 + moved x
#     m          = m_from_dev (w - w_init)_0 + m_kept m_0 + moving x
# with _0 for the start of the presentation. So neurons and interneurons integrate these, and
# synapses follow once a presentation.
DRIVE_WITHIN_PRESENTATION = "z = z_init + dev_kept*z_dev + dev_from_m*z_m + moved*x_squared : 1"

PROJECTIONS = """
z_init_post = w_init*x_pre : 1 (summed)
z_dev_post = dev*x_pre : 1 (summed)
z_m_post = m*x_pre : 1 (summed)
"""

NORM = "x_squared_post = x_pre**2 : 1 (summed)"

LEARN_ALONG_INPUT = """
moving = momentum*moving - rate*({signal} + gamma*moved)
moved = moved + moving
"""

DECAY = """
m_from_dev = momentum*m_from_dev - rate*gamma*dev_kept
dev_kept = dev_kept + m_from_dev
m_kept = momentum*m_kept - rate*gamma*dev_from_m
dev_from_m = dev_from_m + m_kept
"""

CONSOLIDATE = """
dev_before = dev
dev = dev_kept_pre*dev_before + dev_from_m_pre*m + moved_post*x_pre
m = m_from_dev_pre*dev_before + m_kept_pre*m + moving_post*x_pre
"""
