"""Solvers for symmetric linear systems; they know operators and vectors, not problems."""

from implicit_grad.linear._system import LinearSolver as LinearSolver
from implicit_grad.linear.bicgstab import BiCGSTAB as BiCGSTAB
from implicit_grad.linear.block_cg import BlockCG as BlockCG
from implicit_grad.linear.cg import CG as CG
from implicit_grad.linear.cholesky import Cholesky as Cholesky
from implicit_grad.linear.eigh import Eigh as Eigh
from implicit_grad.linear.general_gmres import GeneralGMRES as GeneralGMRES
from implicit_grad.linear.general_lu import GeneralLU as GeneralLU
from implicit_grad.linear.gmres import GMRES as GMRES
from implicit_grad.linear.lanczos import extreme_eigenvalues as extreme_eigenvalues
from implicit_grad.linear.lsmr import LSMR as LSMR
from implicit_grad.linear.lu import LU as LU
from implicit_grad.linear.minres import MINRES as MINRES
from implicit_grad.linear.mixed_precision import MixedPrecision as MixedPrecision
from implicit_grad.linear.neumann import Neumann as Neumann
from implicit_grad.linear.nystrom import Nystrom as Nystrom
from implicit_grad.linear.operator import Operator as Operator
from implicit_grad.linear.operator import as_operator as as_operator
from implicit_grad.linear.preconditioned_cg import PreconditionedCG as PreconditionedCG
from implicit_grad.linear.preconditioners import Jacobi as Jacobi
from implicit_grad.linear.preconditioners import NystromPreconditioner as NystromPreconditioner
from implicit_grad.linear.preconditioners import Preconditioner as Preconditioner
from implicit_grad.linear.scipy_cg import ScipyCG as ScipyCG
from implicit_grad.linear.spectrum import spectrum_ends as spectrum_ends
from implicit_grad.linear.woodbury import Woodbury as Woodbury
