"""Is somebody's meta-gradient right? A verdict, the size of the error, and the likely cause."""

from implicit_grad.verify._catalogue import CATALOGUE as CATALOGUE
from implicit_grad.verify._catalogue import wrong_formula as wrong_formula
from implicit_grad.verify._command import command_candidate as command_candidate
from implicit_grad.verify._foreign import jax_candidate as jax_candidate
from implicit_grad.verify._foreign import torch_candidate as torch_candidate
from implicit_grad.verify._formula import WrongFormula as WrongFormula
