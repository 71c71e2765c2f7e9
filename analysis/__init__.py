"""Figures of implicit_grad: one script, one claim, one figure."""
