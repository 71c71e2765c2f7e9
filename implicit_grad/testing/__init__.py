"""Laws for anyone's solvers and gradients, and the strategies and mutants that try them out.

One line each: `check_linear_solver(solver)`, `check_inner_solver(solver)`, `check_hvp(loss)` and
`check_meta_gradient(function)`. The strategies are in `implicit_grad.testing.strategies`.
"""

from importlib.util import find_spec

from implicit_grad.errors import MissingDependency

if find_spec("hypothesis") is None:
    raise MissingDependency("implicit_grad.testing needs hypothesis: pip install 'implicit-grad[testing]'")

from implicit_grad.testing.hvp_laws import HVP_LAWS as HVP_LAWS
from implicit_grad.testing.inner_laws import INNER_LAWS as INNER_LAWS
from implicit_grad.testing.law import Finding as Finding
from implicit_grad.testing.law import Law as Law
from implicit_grad.testing.law import LawViolation as LawViolation
from implicit_grad.testing.law import Result as Result
from implicit_grad.testing.linear_laws import LINEAR_LAWS as LINEAR_LAWS
from implicit_grad.testing.linear_subject import Domain as Domain
from implicit_grad.testing.linear_subject import as_linear_operator as as_linear_operator
from implicit_grad.testing.linear_subject import as_matrix as as_matrix
from implicit_grad.testing.linear_subject import as_matvec as as_matvec
from implicit_grad.testing.meta_laws import META_LAWS as META_LAWS
from implicit_grad.testing.promises import Budget as Budget
from implicit_grad.testing.promises import Exact as Exact
from implicit_grad.testing.promises import Krylov as Krylov
from implicit_grad.testing.promises import Tolerance as Tolerance
from implicit_grad.testing.strategies import batch_shapes as batch_shapes
from implicit_grad.testing.strategies import definite_spectra as definite_spectra
from implicit_grad.testing.strategies import indefinite_spectra as indefinite_spectra
from implicit_grad.testing.strategies import lambdas as lambdas
from implicit_grad.testing.strategies import linear_systems as linear_systems
from implicit_grad.testing.strategies import logistic_problems as logistic_problems
from implicit_grad.testing.strategies import mlp_problems as mlp_problems
from implicit_grad.testing.strategies import ridge_problems as ridge_problems
from implicit_grad.testing.strategies import scales as scales
from implicit_grad.testing.strategies import singular_spectra as singular_spectra
from implicit_grad.testing.strategies import softmax_problems as softmax_problems
from implicit_grad.testing.strategies import spd_matrices as spd_matrices
from implicit_grad.testing.suites import check_hvp as check_hvp
from implicit_grad.testing.suites import check_inner_solver as check_inner_solver
from implicit_grad.testing.suites import check_linear_solver as check_linear_solver
from implicit_grad.testing.suites import check_meta_gradient as check_meta_gradient
