"""Laws 1 to 58 and 64 to 69 of the project's reference notes, and the tests that hold our code to each.

`test_indices.py` checks that none is missing and that every test named here is collected.
"""

LAWS: dict[int, tuple[str, ...]] = {
    # the reported residual is true, and CONVERGED means the tolerance
    1: (
        "properties/test_laws_first_order.py::test_law_01_residual_is_honest",
        "properties/test_laws_inner.py::test_law_01_residual_is_honest",
        "properties/test_laws_inner.py::test_law_01_newton_is_global",
    ),
    # no steps return θ bit by bit
    2: (
        "properties/test_laws_first_order.py::test_law_02_no_steps",
        "properties/test_laws_inner.py::test_law_02_no_steps",
    ),
    # sufficient decrease of gradient descent
    3: ("properties/test_laws_inner.py::test_law_03_descent",),
    # contraction by 1 − αλ a step
    4: ("properties/test_laws_inner.py::test_law_04_contraction",),
    # the path on ridge in closed form
    5: ("properties/test_laws_inner.py::test_law_05_ridge_path",),
    # the residual bounds the distance
    6: (
        "properties/test_laws_first_order.py::test_law_06_error_below_residual",
        "properties/test_laws_inner.py::test_law_06_residual_bounds_error",
    ),
    # two solvers agree to their residuals
    7: (
        "properties/test_laws_first_order.py::test_law_07_two_solvers",
        "properties/test_laws_inner.py::test_law_07_two_solvers",
        "test_inner_continuation.py::test_finds_the_minimum_of_every_lambda",
    ),
    # θ ↦ φ* is firmly non-expansive
    8: ("properties/test_laws_inner.py::test_law_08_firmly_nonexpansive",),
    # monotone in λ
    9: ("properties/test_laws_inner.py::test_law_09_path_in_lam",),
    # φ* is no further from θ than ‖∇L(θ)‖/λ
    10: ("properties/test_laws_inner.py::test_law_10_distance",),
    # the envelope theorem
    11: ("properties/test_laws_inner.py::test_law_11_envelope",),
    # one Newton step on a quadratic; φ* is a fixed point
    12: (
        "properties/test_laws_first_order.py::test_law_12_fixed_point",
        "properties/test_laws_inner.py::test_law_12_one_newton_step",
        "properties/test_laws_inner.py::test_law_12_fixed_point",
    ),
    # backward and forward error of exact solves
    13: (
        "properties/test_laws_linear.py::test_law_13_exact_solves",
        "properties/test_laws_linear_methods.py::test_law_13_exact_solves",
    ),
    # CG's energy error never rises
    14: (
        "properties/test_laws_linear.py::test_law_14_energy_error",
        "properties/test_laws_linear_methods.py::test_laws_14_to_19_without_a_preconditioner",
        "properties/test_laws_linear_methods.py::test_laws_14_and_18_of_blocks",
    ),
    # Chebyshev's bound
    15: (
        "properties/test_laws_linear.py::test_law_15_chebyshev",
        "properties/test_laws_linear_methods.py::test_laws_14_to_19_without_a_preconditioner",
        "properties/test_laws_linear_methods.py::test_law_15_preconditioned",
    ),
    # CG's 2-norm error never rises, its iterates never shrink
    16: (
        "properties/test_laws_linear.py::test_law_16_two_norms",
        "properties/test_laws_linear_methods.py::test_laws_14_to_19_without_a_preconditioner",
    ),
    # finite termination
    17: (
        "properties/test_laws_linear.py::test_law_17_finite_termination",
        "properties/test_laws_linear_methods.py::test_laws_14_to_19_without_a_preconditioner",
        "properties/test_laws_linear_methods.py::test_law_17_preconditioned",
        "properties/test_laws_linear_methods.py::test_law_17_blocks",
    ),
    # CG is the best polynomial
    18: (
        "properties/test_laws_linear.py::test_law_18_best_polynomial",
        "properties/test_laws_linear_methods.py::test_laws_14_to_19_without_a_preconditioner",
        "properties/test_laws_linear_methods.py::test_laws_14_and_18_of_blocks",
        "properties/test_laws_linear_methods.py::test_law_18_neumann",
    ),
    # every iterate descends
    19: (
        "properties/test_laws_linear.py::test_law_19_descent_direction",
        "properties/test_laws_linear_methods.py::test_laws_14_to_19_without_a_preconditioner",
        "properties/test_laws_linear_methods.py::test_law_19_nystrom",
    ),
    # MINRES has the smallest residual
    20: (
        "properties/test_laws_linear_methods.py::test_law_20_smallest_residuals",
        "properties/test_laws_linear_methods.py::test_law_20_indefinite",
        "properties/test_laws_linear_methods.py::test_law_20_twins",
    ),
    # scale of the system
    21: (
        "properties/test_laws_linear.py::test_law_21_scale_invariance",
        "properties/test_laws_linear_methods.py::test_law_21_scale_invariance",
        "properties/test_laws_linear_methods.py::test_laws_21_and_27_where_squares_count",
    ),
    # one Krylov space for every λ
    22: (
        "properties/test_laws_linear.py::test_law_22_shift_invariance",
        "test_estimators_lambda_path.py::test_equals_conjugate_gradient_at_each_lambda_on_ridge",
        "test_estimators_lambda_path.py::test_equals_conjugate_gradient_at_each_lambda_on_softmax",
    ),
    # b = 0, and no steps
    23: (
        "properties/test_laws_linear.py::test_law_23_nothing_to_do",
        "properties/test_laws_linear_methods.py::test_law_23_nothing_to_do",
    ),
    # the error of Neumann's series, and its divergence
    24: (
        "properties/test_laws_linear_methods.py::test_law_24_neumann",
        "properties/test_laws_linear_methods.py::test_law_24_divergence",
    ),
    # truncated backpropagation at φ* is Neumann's series
    25: (
        "properties/test_laws_estimators.py::test_law_25_truncated_backpropagation",
        "properties/test_laws_linear_methods.py::test_law_25_truncated_backpropagation",
    ),
    # symmetry of exact solves and of the series
    26: (
        "properties/test_laws_linear.py::test_law_26_symmetry",
        "properties/test_laws_linear_methods.py::test_law_26_symmetry",
    ),
    # an eigenvector takes one step
    27: (
        "properties/test_laws_linear.py::test_law_27_eigenvector",
        "properties/test_laws_linear_methods.py::test_laws_21_and_27_where_squares_count",
        "properties/test_laws_linear_methods.py::test_law_27_eigenvector",
    ),
    # Nyström's resolvent
    28: (
        "properties/test_laws_linear_methods.py::test_law_28_nystrom",
        "properties/test_laws_linear_methods.py::test_law_28_exact",
    ),
    # Woodbury
    29: (
        "properties/test_laws_linear.py::test_law_29_woodbury",
        "properties/test_laws_linear_methods.py::test_law_29_woodbury",
    ),
    # the residual bounds the error of I + H/λ
    30: (
        "properties/test_laws_linear.py::test_law_30_residual_bounds_error",
        "properties/test_laws_linear_methods.py::test_law_30_residual_bounds_error",
    ),
    # the lower bound of the energy error
    31: ("properties/test_laws_linear.py::test_law_31_lower_bound",),
    # the status follows the recomputed residual
    32: (
        "properties/test_laws_linear.py::test_law_32_status",
        "properties/test_laws_linear_methods.py::test_law_32_status",
        "properties/test_laws_linear_methods.py::test_law_32_refinement",
    ),
    # λ → ∞
    33: ("properties/test_laws_estimators.py::test_law_33_large_lam",),
    # λ → 0
    34: ("properties/test_laws_estimators.py::test_law_34_small_lam",),
    # the first-order gap
    35: (
        "properties/test_laws_estimators.py::test_law_35_first_order_gap",
        "properties/test_laws_estimators.py::test_law_35_flat",
    ),
    # no step and one step of unrolling
    36: ("properties/test_laws_estimators.py::test_law_36_few_steps",),
    # the unrolled Jacobian on ridge
    37: ("properties/test_laws_estimators.py::test_law_37_ridge_jacobian",),
    # the rate of unrolling
    38: ("properties/test_laws_estimators.py::test_law_38_unrolled_rate",),
    # θ stationary
    39: ("properties/test_laws_estimators.py::test_law_39_stationary_theta",),
    # linear in the test loss
    40: (
        "properties/test_laws_invariances.py::test_law_40_linear_in_outer_loss",
        "properties/test_laws_invariances.py::test_law_40_constants",
    ),
    # common factors
    41: (
        "properties/test_laws_invariances.py::test_law_41_scaling",
        "properties/test_laws_invariances.py::test_law_41_unrolled",
        "properties/test_laws_methods.py::test_law_41_scaling",
        "properties/test_laws_first_order.py::test_scaling",
    ),
    # orthogonal coordinates
    42: (
        "properties/test_laws_invariances.py::test_law_42_orthogonal_coordinates",
        "properties/test_laws_invariances.py::test_law_42_unrolled",
        "properties/test_laws_invariances.py::test_law_42_hidden_units",
        "properties/test_laws_methods.py::test_law_42_orthogonal_coordinates",
    ),
    # softmax: shifts over the classes
    43: (
        "properties/test_laws_invariances.py::test_law_43_softmax_shifts",
        "properties/test_laws_methods.py::test_law_43_softmax_shifts",
    ),
    # names of classes, order of samples
    44: (
        "properties/test_laws_invariances.py::test_law_44_class_names",
        "properties/test_laws_invariances.py::test_law_44_sample_order",
        "properties/test_laws_methods.py::test_law_44_sample_order",
    ),
    # repeated samples
    45: ("properties/test_laws_invariances.py::test_law_45_duplicates",),
    # ridge: translations
    46: (
        "properties/test_laws_invariances.py::test_law_46_translation",
        "properties/test_laws_methods.py::test_law_46_translation",
    ),
    # ridge: one sample
    47: ("properties/test_laws_estimators.py::test_law_47_one_sample",),
    # shrinking
    48: ("properties/test_laws_estimators.py::test_law_48_shrinking",),
    # the derivative in λ
    49: (
        "properties/test_laws_estimators.py::test_law_49_derivative_in_lam",
        "test_regularized.py::test_the_derivative_by_the_strength_is_the_slope_over_it",
    ),
    # the total derivative
    50: (
        "properties/test_laws_estimators.py::test_law_50_total_derivative",
        "properties/test_laws_estimators.py::test_law_50_central_differences",
        "properties/test_laws_estimators.py::test_law_50_network",
        "properties/test_laws_methods.py::test_law_50_network",
        "test_regularized.py::test_the_gradient_is_the_slope_of_refitted_losses",
    ),
    # inner accuracy: not seen, or linear
    51: (
        "properties/test_laws_estimators.py::test_law_51_inner_accuracy",
        "properties/test_laws_estimators.py::test_law_51_bound",
    ),
    # a batch is its tasks
    52: (
        "properties/test_laws_invariances.py::test_law_52_batch",
        "properties/test_laws_methods.py::test_law_52_batch",
    ),
    # products are symmetric
    53: ("properties/test_laws_hvp.py::test_law_53_symmetry",),
    # products are linear
    54: (
        "properties/test_laws_hvp.py::test_law_54_linear",
        "properties/test_laws_hvp.py::test_law_54_single_precision",
    ),
    # products are derivatives of the gradient
    55: (
        "properties/test_laws_hvp.py::test_law_55_complex_step",
        "properties/test_laws_hvp.py::test_law_55_central_differences",
    ),
    # columns of the dense Hessian, both modes
    56: (
        "properties/test_laws_hvp.py::test_law_56_dense_columns",
        "properties/test_laws_hvp.py::test_law_56_two_modes",
    ),
    # convex losses; H + λI
    57: (
        "properties/test_laws_hvp.py::test_law_57_convex",
        "properties/test_laws_hvp.py::test_law_57_proximal",
    ),
    # additive over samples; Euler
    58: (
        "properties/test_laws_hvp.py::test_law_58_additive",
        "properties/test_laws_hvp.py::test_law_58_homogeneous",
    ),
    # an error bar is no shorter than the error
    64: (
        "properties/test_laws_certificates.py::test_law_64_65_bounds_hold",
        "test_certificates.py::test_rigorous_bounds_are_never_crossed",
    ),
    # an enclosure encloses
    65: ("properties/test_laws_certificates.py::test_law_64_65_bounds_hold",),
    # down to rounding, linearly
    66: ("properties/test_laws_certificates.py::test_law_66_linear_down_to_rounding",),
    # scales with the test loss; the same for the same problem in other words
    67: (
        "properties/test_laws_certificates.py::test_law_67_scales",
        "properties/test_laws_certificates.py::test_law_67_invariances",
    ),
    # constants too small are crossed
    68: (
        "properties/test_laws_certificates.py::test_law_68_wrong_constants_are_crossed",
        "test_certificates.py::test_smaller_constants_are_crossed",
        "test_certificates_audit.py::test_wrong_constants_are_seen",
    ),
    # Ritz values lie inside the spectrum
    69: (
        "properties/test_laws_linear.py::test_law_69_ritz_values",
        "properties/test_laws_linear_methods.py::test_law_69_ritz_values",
        "test_certificates_curvature.py::test_a_ritz_value_is_no_lower_bound",
    ),
}

# Sentences that look like laws and are false. Each has a test of a counterexample, so that nobody tests them as laws.
NOT_LAWS: dict[str, tuple[str, ...]] = {
    "CG's residual norm never rises": ("test_indices.py::test_false_the_residual_of_cg_never_rises",),
    "CG-k is linear in b": ("test_indices.py::test_false_cg_is_linear_in_b",),
    "more CG steps are better at any φ": ("test_indices.py::test_false_more_steps_are_better_at_any_point",),
    "the error falls with every inner step": ("test_indices.py::test_false_more_inner_steps_are_always_better",),
    "iMAML has a better rate than MAML on quadratics": (
        "properties/test_laws_estimators.py::test_law_37_ridge_jacobian",
    ),
}
