"""Broken solvers, products and meta-gradients: what the laws must tell from sound ones."""
