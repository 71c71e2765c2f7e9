"""Inner solvers: minimise G(·; θ) for a batch of problems."""

from implicit_grad.inner._protocol import InnerSolver as InnerSolver
from implicit_grad.inner.adam import Adam as Adam
from implicit_grad.inner.continuation import Continuation as Continuation
from implicit_grad.inner.gradient_descent import GradientDescent as GradientDescent
from implicit_grad.inner.heavy_ball import HeavyBall as HeavyBall
from implicit_grad.inner.lbfgs import LBFGS as LBFGS
from implicit_grad.inner.nesterov import Nesterov as Nesterov
from implicit_grad.inner.newton import Newton as Newton
from implicit_grad.inner.newton_cg import NewtonCG as NewtonCG
from implicit_grad.inner.scipy_minimize import ScipyMinimize as ScipyMinimize
from implicit_grad.inner.sgd import SGD as SGD
