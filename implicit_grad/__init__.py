"""Is this implicit (meta-)gradient right, how wrong is it, and why?"""

from implicit_grad.errors import ArgumentError as ArgumentError
from implicit_grad.errors import ArgumentTypeError as ArgumentTypeError
from implicit_grad.errors import BackendError as BackendError
from implicit_grad.errors import BackendUnavailable as BackendUnavailable
from implicit_grad.errors import ConvergenceError as ConvergenceError
from implicit_grad.errors import CorruptData as CorruptData
from implicit_grad.errors import DataNotFound as DataNotFound
from implicit_grad.errors import ImplicitGradError as ImplicitGradError
from implicit_grad.errors import IndefiniteError as IndefiniteError
from implicit_grad.errors import LossError as LossError
from implicit_grad.errors import MissingDependency as MissingDependency
from implicit_grad.errors import NonFiniteError as NonFiniteError
from implicit_grad.estimators import EXACT as EXACT
from implicit_grad.estimators import Estimator as Estimator
from implicit_grad.estimators import FirstOrderGradient as FirstOrderGradient
from implicit_grad.estimators import ImplicitGradient as ImplicitGradient
from implicit_grad.estimators import MetaGradient as MetaGradient
from implicit_grad.estimators import UnrolledGradient as UnrolledGradient
from implicit_grad.inner import GradientDescent as GradientDescent
from implicit_grad.inner import InnerSolver as InnerSolver
from implicit_grad.inner import Newton as Newton
from implicit_grad.inner import ScipyMinimize as ScipyMinimize
from implicit_grad.linear import CG as CG
from implicit_grad.linear import Cholesky as Cholesky
from implicit_grad.linear import LinearSolver as LinearSolver
from implicit_grad.linear import Operator as Operator
from implicit_grad.linear import ScipyCG as ScipyCG
from implicit_grad.linear import Woodbury as Woodbury
from implicit_grad.linear import extreme_eigenvalues as extreme_eigenvalues
from implicit_grad.objectives import Autodiff as Autodiff
from implicit_grad.objectives import LeastSquares as LeastSquares
from implicit_grad.objectives import Linearization as Linearization
from implicit_grad.objectives import MultilayerPerceptron as MultilayerPerceptron
from implicit_grad.objectives import SmoothFunction as SmoothFunction
from implicit_grad.objectives import SoftmaxCrossEntropy as SoftmaxCrossEntropy
from implicit_grad.objectives import Softplus as Softplus
from implicit_grad.objectives import Tanh as Tanh
from implicit_grad.problem import BilevelProblem as BilevelProblem
from implicit_grad.results import Cost as Cost
from implicit_grad.results import Estimate as Estimate
from implicit_grad.results import Path as Path
from implicit_grad.results import Solution as Solution
from implicit_grad.results import Status as Status
from implicit_grad.results import describe as describe

__version__ = "0.1.0"
