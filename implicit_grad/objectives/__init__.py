"""Losses as smooth functions: value, gradient and cheap Hessian-vector products."""

from implicit_grad.objectives._protocol import Linearization as Linearization
from implicit_grad.objectives._protocol import LowRank as LowRank
from implicit_grad.objectives._protocol import SmoothFunction as SmoothFunction
from implicit_grad.objectives.autodiff import Autodiff as Autodiff
from implicit_grad.objectives.autodiff_map import AutodiffMap as AutodiffMap
from implicit_grad.objectives.least_squares import LeastSquares as LeastSquares
from implicit_grad.objectives.multilayer_perceptron import MultilayerPerceptron as MultilayerPerceptron
from implicit_grad.objectives.multilayer_perceptron import Softplus as Softplus
from implicit_grad.objectives.multilayer_perceptron import Tanh as Tanh
from implicit_grad.objectives.softmax import SoftmaxCrossEntropy as SoftmaxCrossEntropy
from implicit_grad.objectives.stationarity import FixedPoint as FixedPoint
from implicit_grad.objectives.stationarity import LinearizedMap as LinearizedMap
from implicit_grad.objectives.stationarity import StationarityMap as StationarityMap
