"""Learned two-level domain decomposition for partial differential equations.

mesh -> problems -> partition -> coarse, local -> schwarz     classical methods
features -> learned                                            MG-GNN's interface values and P
setup, rates, losses, data, lightning                          training and measuring
"""
