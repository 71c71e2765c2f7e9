"""Meta-gradient estimators: functions of a problem, θ and an inner solution."""

from implicit_grad.estimators.checkpointed import CheckpointedGradient as CheckpointedGradient
from implicit_grad.estimators.complex_step import ComplexStepGradient as ComplexStepGradient
from implicit_grad.estimators.contrastive import ContrastiveGradient as ContrastiveGradient
from implicit_grad.estimators.diagonal import DiagonalGradient as DiagonalGradient
from implicit_grad.estimators.diagonal import IdentityGradient as IdentityGradient
from implicit_grad.estimators.finite_difference import FiniteDifferenceGradient as FiniteDifferenceGradient
from implicit_grad.estimators.first_order import FirstOrderGradient as FirstOrderGradient
from implicit_grad.estimators.forward_mode import ForwardModeGradient as ForwardModeGradient
from implicit_grad.estimators.gauss_newton import GaussNewtonGradient as GaussNewtonGradient
from implicit_grad.estimators.implicit import ImplicitGradient as ImplicitGradient
from implicit_grad.estimators.lambda_derivative import lambda_gradient as lambda_gradient
from implicit_grad.estimators.lambda_path import LambdaPath as LambdaPath
from implicit_grad.estimators.meta_gradient import EXACT as EXACT
from implicit_grad.estimators.meta_gradient import Estimator as Estimator
from implicit_grad.estimators.meta_gradient import MetaGradient as MetaGradient
from implicit_grad.estimators.one_step import GradientStep as GradientStep
from implicit_grad.estimators.one_step import NewtonStep as NewtonStep
from implicit_grad.estimators.one_step import OneStepGradient as OneStepGradient
from implicit_grad.estimators.reptile import ReptileDirection as ReptileDirection
from implicit_grad.estimators.richardson import RichardsonGradient as RichardsonGradient
from implicit_grad.estimators.super_efficient import SuperEfficientGradient as SuperEfficientGradient
from implicit_grad.estimators.unrolled import UnrolledGradient as UnrolledGradient
