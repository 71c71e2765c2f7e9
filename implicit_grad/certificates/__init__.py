"""Error bars: bounds of a meta-gradient's own error, computed from residuals and constants."""

from implicit_grad.certificates._certify import Certificate as Certificate
from implicit_grad.certificates._certify import certify as certify
from implicit_grad.certificates._constants import Constants as Constants
from implicit_grad.certificates._constants import Kind as Kind
from implicit_grad.certificates._constants import closed_form_constants as closed_form_constants
from implicit_grad.certificates._constants import sampled_constants as sampled_constants
from implicit_grad.certificates._curvature import Convexity as Convexity
from implicit_grad.certificates._curvature import CurvatureBound as CurvatureBound
from implicit_grad.certificates._curvature import Eigenvalues as Eigenvalues
from implicit_grad.certificates._curvature import RandomLanczos as RandomLanczos
from implicit_grad.certificates._curvature import SeenSpectrum as SeenSpectrum
from implicit_grad.certificates._curvature import ShiftedCholesky as ShiftedCholesky
