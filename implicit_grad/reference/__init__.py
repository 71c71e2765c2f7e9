"""Meta-gradients to many digits, with a proven radius: the last word on any other."""

from implicit_grad.reference._reference import Reference as Reference
from implicit_grad.reference._reference import reference as reference
