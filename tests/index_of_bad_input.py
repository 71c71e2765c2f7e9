"""Rows 1 to 39 of the table of bad input in the project's reference notes, and the tests of each.

These are the rows that a solver can meet; those after 39 are about files, commands and machines. Of a test that takes
many rows at once the beginning of the ids of one row is given. `test_indices.py` checks that no row is missing and
that every test named here is collected.
"""

_ERRORS = "test_bad_input_errors.py::test_a_typed_error_names_the_argument[{}: "
_WORKS = "test_bad_input_degenerate.py::test_degenerate_input_works[{}: "
_STATUS = "test_bad_input_statuses.py::test_numerical_failure_is_a_status_and_an_error_on_demand[{}: "


def _cases(row: int, *tables: str) -> tuple[str, ...]:
    """Beginnings of ids."""
    return tuple(table.format(row) for table in tables)


BAD_INPUT: dict[int, tuple[str, ...]] = {
    # λ ≤ 0; NaN and infinite; no real number
    1: _cases(1, _ERRORS),
    2: _cases(2, _ERRORS),
    3: _cases(3, _ERRORS, _WORKS),
    # a saddle
    4: (
        *_cases(4, _STATUS),
        "test_saddles.py::test_every_linear_solver_refuses_a_saddle",
        "test_saddles.py::test_every_estimator_at_a_saddle",
    ),
    # λ near −μ_min(H)
    5: (
        *_cases(5, _STATUS),
        "test_ill_conditioned.py::test_kappa_is_in_the_message",
        "test_ill_conditioned.py::test_no_exact_solve_without_a_digit_says_converged",
        "test_linear_dense.py::test_lam_near_an_eigenvalue_of_the_hessian",
    ),
    # φ is not stationary
    6: ("test_bad_input_statuses.py::test_row_06_a_phi_that_is_not_stationary",),
    # the inner solver ran out of steps; diverged
    7: (*_cases(7, _STATUS), "test_estimators_methods.py::test_a_failed_inner_solve_is_not_forgotten"),
    8: (*_cases(8, _STATUS), "test_inner_gradient_descent.py::test_one_diverging_problem_of_a_batch"),
    # CG stagnates; its budget
    9: (*_cases(9, _STATUS), "test_linear_cg.py::test_a_lying_recurrence_is_restarted"),
    10: _cases(10, _STATUS),
    # singular
    11: (*_cases(11, _STATUS), "test_saddles.py::test_singular_is_no_minimum_either"),
    # steps and ranks of Neumann and Nyström
    12: (*_cases(12, _ERRORS, _STATUS), "test_linear_nystrom.py::test_the_rank_is_at_most_d"),
    # dtypes
    13: (*_cases(13, _ERRORS), "test_estimators_methods.py::test_float32_stays_float32"),
    14: _cases(14, _WORKS),
    15: _cases(15, _ERRORS),
    16: _cases(16, _ERRORS),
    # containers and layouts
    17: (*_cases(17, _ERRORS, _WORKS), "test_border.py::test_layout_is_c_order"),
    # shapes and labels
    18: _cases(18, _ERRORS),
    19: _cases(19, _WORKS),
    20: (*_cases(20, _ERRORS), "test_bad_input_errors.py::test_row_20_tasks_whose_labels_look_one_hot"),
    21: _cases(21, _ERRORS),
    # values of data
    22: _cases(22, _ERRORS),
    23: _cases(23, _WORKS),
    # losses
    24: _cases(24, _ERRORS),
    25: _cases(25, _ERRORS),
    26: (
        "test_check.py::test_row_26_a_loss_without_parameters",
        "test_objectives_autodiff.py::test_a_loss_that_ignores_its_parameters_is_warned_of",
    ),
    27: (*_cases(27, _STATUS), "test_check.py::test_row_27_numpy_in_a_traced_loss"),
    28: ("test_check.py::test_rows_28_to_30_kinks_and_what_is_not_finite",),
    29: (*_cases(29, _STATUS), "test_check.py::test_rows_28_to_30_kinks_and_what_is_not_finite"),
    30: (*_cases(30, _STATUS), "test_check.py::test_rows_28_to_30_kinks_and_what_is_not_finite"),
    31: ("test_check.py::test_row_31_random_and_stateful_losses",),
    32: (
        "test_bad_input_user_code.py::test_row_32_a_loss_that_writes_into_theta",
        "test_check.py::test_row_32_losses_that_write",
    ),
    # what the user raises, and Ctrl-C
    33: ("test_bad_input_user_code.py::test_rows_33_and_34_what_the_user_raises_comes_out_as_it_is",),
    34: (
        "test_bad_input_user_code.py::test_rows_33_and_34_what_the_user_raises_comes_out_as_it_is",
        "test_cli.py::test_an_interrupt_exits_with_130",
        "test_engine_sweeping.py::test_an_interrupt_keeps_what_is_finished",
    ),
    # scales
    35: _cases(35, _ERRORS, _WORKS),
    36: (*_cases(36, _WORKS, _STATUS), "test_bad_input_degenerate.py::test_row_36_what_scipy_gets_wrong"),
    37: _cases(37, _WORKS),
    # counts and shapes of θ
    38: _cases(38, _ERRORS),
    39: _cases(39, _ERRORS),
}

# What a row asks for and no solver here can do, with the reason.
NOT_MET: dict[int, str] = {
    12: "known bounds of λ_max are upper ones: a step beyond 2/bound may converge; divergence is told, not forbidden",
    19: "κ is in `Solution.condition`; the rank of H is not reported, since no formula here needs it",
    33: "no solver takes a callback, so none can ask for a clean stop by StopIteration: it comes out like any error",
    34: "a solver keeps nothing on disk; the cells of a sweep are kept by `engine`",
}
