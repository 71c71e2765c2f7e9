"""Task sources: where bilevel problems come from.

A source is a small frozen value object; `source.sample(rng, tasks=T, lam=λ)` draws T tasks as one batched
`BilevelProblem`.
"""

from implicit_grad.data.downsampling import Downsampling as Downsampling
from implicit_grad.tasks._protocol import TaskSource as TaskSource
from implicit_grad.tasks.digits import Digits as Digits
from implicit_grad.tasks.omniglot import Omniglot as Omniglot
from implicit_grad.tasks.omniglot import Split as Split
from implicit_grad.tasks.ridge import RandomRidge as RandomRidge
from implicit_grad.tasks.sinusoid import Sinusoid as Sinusoid
from implicit_grad.tasks.spectrum import Arithmetic as Arithmetic
from implicit_grad.tasks.spectrum import Clustered as Clustered
from implicit_grad.tasks.spectrum import Geometric as Geometric
from implicit_grad.tasks.spectrum import Spectrum as Spectrum
