"""Pictures of meshes, subdomains, interface values, coarse spaces, solutions and convergence.

palette, geometry, canvas, graph     colours; what is drawn of a mesh; axes; problems without a mesh
subdomains, interface, fields        pictures of problems in 2D and 3D
curves, methods                      convergence, cost and training; methods side by side
lightning                            a picture of validation that is kept up to date while training
"""

from ddm.plot.curves import plot_convergence, plot_cost, plot_loss, plot_validation
from ddm.plot.fields import plot_coarse, plot_solution
from ddm.plot.interface import plot_interface
from ddm.plot.methods import plot_runs, plot_seconds, plot_trials
from ddm.plot.subdomains import plot_overlap, plot_subdomains, subdomain_colours

__all__ = [
    "plot_coarse",
    "plot_convergence",
    "plot_cost",
    "plot_interface",
    "plot_loss",
    "plot_overlap",
    "plot_runs",
    "plot_seconds",
    "plot_solution",
    "plot_subdomains",
    "plot_trials",
    "plot_validation",
    "subdomain_colours",
]
