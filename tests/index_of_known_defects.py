"""Defects found in public implicit-gradient code, and what would catch each in ours.

One entry for each defect of the project's reference notes whose formula is in our scope: laws that kill a mutant with
that very fault (`test_mutants.py`, `test_testing_mutants.py`), or tests. After them the notes' identities. Ids may
end before the cases of a test. `test_indices.py` checks that every test named here is collected.
"""

_DIES = "properties/test_mutants.py::test_mutant_dies[{}]"
_LINEAR = "properties/test_mutants_linear_methods.py::test_mutant_dies[{}]"
_OWN = "properties/test_mutants_methods.py::test_mutant_dies[{}]"
_SUITES = "test_testing_mutants.py::test_mutants_die_and_controls_live[{}]"
_HERE = "test_known_defects.py::{}"


def _dies(*faults: str) -> tuple[str, ...]:
    return tuple(map(_DIES.format, faults))


def _suites(*faults: str) -> tuple[str, ...]:
    return tuple(map(_SUITES.format, faults))


DEFECTS: dict[str, tuple[str, ...]] = {
    # conjugate gradient
    "CG returns the iterate before the last update": (
        *_dies("check_law_17-PreviousIterate", "check_law_22-PreviousIterate"),
        *_suites("previous iterate", "previous iterate, tolerance"),
        _HERE.format("test_cg_returns_its_last_iterate"),
    ),
    "CG builds the direction from the residual before the update": (
        *_dies("check_law_14-StaleResidual", "check_law_17-StaleResidual"),
        *_suites("stale residual"),
    ),
    "CG's step size is scaled where the residual does not hear of it": (
        *_dies("check_law_15-UnscaledUpdate"),
        *_suites("step size the residual does not hear of"),
    ),
    "absolute tolerance on r·r": (
        *_dies("check_scale-AbsoluteTolerance", "check_law_21-AbsoluteTolerance"),
        *_suites("absolute tolerance on r\\xb7r"),
    ),
    "a tolerance that never fires": (
        *_suites("gives up"),
        _HERE.format("test_a_tolerance_saves_steps"),
    ),
    "no check of pᵀAp: a saddle converges": (
        *_dies("check_indefinite-SaddleAccepting", "check_saddle-right"),
        *_suites("saddle accepted"),
        "test_saddles.py::test_every_linear_solver_refuses_a_saddle",
    ),
    "b = 0 divides by zero": (
        *_suites("b = 0 divides by zero"),
        "properties/test_laws_linear.py::test_law_23_nothing_to_do",
    ),
    "no step for a single unknown, or for 0-d input": _suites("no step for one unknown", "no step for 0-d"),
    "the recursive residual taken for the true one": (
        *_dies("check_law_30-RecursiveResidual", "check_law_32-RecursiveResidual"),
        *_suites("recursive residual in float32"),
        "test_linear_cg.py::test_a_lying_recurrence_is_restarted",
    ),
    "the zero start returned on failure": (
        *_dies("check_law_32-ZeroOnFailure"),
        *_suites("zero start on failure"),
    ),
    "always converged": (*_dies("check_law_32-AlwaysContent"), *_suites("always converged")),
    # dense solves
    "only the diagonal blocks of a parameter tree are inverted": (
        *_dies("check_law_13-block_inverse", "check_law_44_classes-block-diagonal inverse"),
        *_suites("block-diagonal"),
        "test_linear_cholesky.py::test_every_block_of_the_matrix_counts",
        _HERE.format("test_weights_and_biases_of_a_tree_are_coupled"),
    ),
    "normal equations square the condition number": (
        *_dies("check_law_13-normal_equations"),
        *_suites("normal equations"),
        _HERE.format("test_condition_numbers_are_not_squared"),
    ),
    # the system
    "2I + H/λ: the regulariser counted twice": (
        *_dies("check_closed_form-damped_once", "check_law_33-damped_once"),
        "test_saddles.py::test_and_accepts_the_minimum_beside_it",
    ),
    "H/(λ + 10): damping of λ": _dies("check_closed_form-damped \\u03bb", "check_law_50-damped \\u03bb"),
    "the train loss on the right-hand side": (
        *_dies("check_closed_form-train_on_the_right", "check_law_51-train_on_the_right"),
        "test_problem.py::test_the_train_loss_makes_A_and_the_test_loss_does_not",
    ),
    "θ instead of φ in H": _dies(
        "check_closed_form-\\u03b8 for \\u03c6 in H", "check_law_50_network-\\u03b8 for \\u03c6 in H"
    ),
    "λ and the number of steps swapped": (
        *_dies("check_closed_form-constant for \\u03bb in the system"),
        _HERE.format("test_the_number_of_steps_is_not_lambda"),
    ),
    "the regulariser lacks its ½": (
        *_dies("check_law_11-missing_half", "check_closed_form-2\\u03bb in the system"),
        "test_problem.py::test_stationarity_is_the_slope_of_G",
    ),
    "a λ for each parameter: never reached, or squared": (
        "test_regularized.py::test_a_diagonal_regulariser_has_the_right_transpose",
        "test_regularized.py::test_the_mistakes_about_a_diagonal_are_seen",
        _HERE.format("test_a_weight_for_each_parameter_is_used_and_not_squared"),
    ),
    "a λ for each problem: one for all": _dies("check_law_52-average_lam"),
    "the missing transpose with diagonal Λ": (
        "test_regularized.py::test_the_mistakes_about_a_diagonal_are_seen",
        "test_implicit_derivatives.py::test_the_mistakes_about_a_nonsymmetric_map_are_seen",
    ),
    # the inner solve
    "plain steps down the train loss and the implicit formula at their end": (
        *_dies("check_law_04-unregularised", "check_law_05-unregularised", "check_law_07-unregularised_residual"),
    ),
    "an inner solve that stopped early, without a sign": (
        "test_bad_input_statuses.py::test_row_06_a_phi_that_is_not_stationary",
        "test_estimators_methods.py::test_a_failed_inner_solve_is_not_forgotten",
        *_dies("check_law_01-content"),
    ),
    # reverse passes
    "first-order MAML sold as second order: create_graph off": (
        *_dies("check_law_36-make", "check_law_38-make", "check_law_58_homogeneous-no_graph"),
        *_suites("create_graph off"),
    ),
    "the Jacobian of one step, by forward differences at θ": (
        *_suites("one-sided differences"),
        "test_estimators_unrolled.py::test_equals_autograd_through_the_loop",
        _HERE.format("test_one_step_is_not_all_of_them"),
    ),
    # tests that cannot see
    "all-zero test inputs": (
        "test_testing_mutants.py::test_zero_inputs_see_nothing",
        _HERE.format("test_what_our_laws_draw_has_curvature_and_coupling"),
    ),
    "a test that only looks for a gradient above zero": (_HERE.format("test_no_law_is_content_with_any_gradient"),),
}

OUT_OF_SCOPE: dict[str, str] = {
    "assert x == 'a' or 'b'; type=bool in argparse": "no option is a string, and the command line is made of types",
    "methods announced and absent": "the tables of the README are made from what is there",
}

IDENTITIES: dict[int, tuple[str, ...]] = {
    1: ("properties/test_laws_invariances.py::test_law_41_scaling",),
    2: ("properties/test_laws_invariances.py::test_law_41_scaling",),
    3: (
        "properties/test_laws_invariances.py::test_law_42_orthogonal_coordinates",
        "properties/test_laws_invariances.py::test_law_52_batch",
    ),
    4: (
        "test_regularized.py::test_the_gradient_is_the_slope_of_refitted_losses",
        "test_adapters_derivatives.py::test_forward_and_reverse_are_transposes_and_hessians_symmetric",
    ),
    5: (
        "properties/test_laws_estimators.py::test_law_33_large_lam",
        "properties/test_laws_estimators.py::test_law_34_small_lam",
    ),
    6: ("properties/test_laws_methods.py::test_moreau_envelope",),
    7: ("properties/test_laws_estimators.py::test_law_51_inner_accuracy",),
    8: (
        "properties/test_laws_linear.py::test_law_14_energy_error",
        "properties/test_laws_linear.py::test_law_17_finite_termination",
        _HERE.format("test_one_step_of_cg_is_along_the_right_hand_side"),
    ),
    9: ("properties/test_laws_linear_methods.py::test_law_25_truncated_backpropagation",),
    10: (
        "properties/test_laws_methods.py::test_one_gradient_step",
        "properties/test_laws_methods.py::test_one_newton_step",
    ),
    11: ("test_estimators_contrastive.py::test_orders",),
    12: ("test_estimators_super_efficient.py::test_orders",),
    13: ("properties/test_laws_certificates.py::test_law_64_65_bounds_hold",),
    14: ("properties/test_laws_estimators.py::test_law_38_unrolled_rate",),
    15: ("properties/test_laws_estimators.py::test_law_49_derivative_in_lam",),
    16: (_HERE.format("test_the_floor_is_eps_times_kappa"),),
    17: (
        "properties/test_laws_linear_methods.py::test_law_28_nystrom",
        "properties/test_laws_linear_methods.py::test_law_28_exact",
    ),
    18: ("properties/test_laws_estimators.py::test_truncation",),
    19: (_HERE.format("test_tasks_with_one_hessian_share_a_solve"),),
}
