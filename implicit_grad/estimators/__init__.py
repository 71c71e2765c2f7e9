"""Meta-gradient estimators: functions of a problem, θ and an inner solution."""

from implicit_grad.estimators.first_order import FirstOrderGradient as FirstOrderGradient
from implicit_grad.estimators.implicit import ImplicitGradient as ImplicitGradient
from implicit_grad.estimators.meta_gradient import EXACT as EXACT
from implicit_grad.estimators.meta_gradient import Estimator as Estimator
from implicit_grad.estimators.meta_gradient import MetaGradient as MetaGradient
from implicit_grad.estimators.unrolled import UnrolledGradient as UnrolledGradient
