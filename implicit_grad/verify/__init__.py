"""Is somebody's meta-gradient right? A verdict, the size of the error, and the likely cause."""

from implicit_grad.verify._candidate import Fault as Fault
from implicit_grad.verify._candidate import Observation as Observation
from implicit_grad.verify._catalogue import CATALOGUE as CATALOGUE
from implicit_grad.verify._catalogue import wrong_formula as wrong_formula
from implicit_grad.verify._command import command_candidate as command_candidate
from implicit_grad.verify._diagnosis import Cause as Cause
from implicit_grad.verify._diagnosis import Diagnosis as Diagnosis
from implicit_grad.verify._foreign import jax_candidate as jax_candidate
from implicit_grad.verify._foreign import torch_candidate as torch_candidate
from implicit_grad.verify._formula import WrongFormula as WrongFormula
from implicit_grad.verify._report import Point as Point
from implicit_grad.verify._report import Report as Report
from implicit_grad.verify._report import Verdict as Verdict
from implicit_grad.verify._verify import assert_meta_gradient as assert_meta_gradient
from implicit_grad.verify._verify import verify as verify
