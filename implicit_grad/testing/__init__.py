"""Laws for anyone's solvers and gradients, and the strategies and mutants that try them out."""
