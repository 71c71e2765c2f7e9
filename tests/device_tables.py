"""What CuPy 14.2 has and takes, where it is less than NumPy; `test_device_cupy.py` holds it against CuPy."""

_ABSENT = """asmatrix block bmat busday_count busday_offset datetime_as_string datetime_data einsum_path frompyfunc
    fromregex geomspace get_include getbufsize geterr geterrcall histogram_bin_edges info insert is_busday isnat
    matvec nanpercentile nanquantile nested_iters polyder polydiv polyint setbufsize seterr seterrcall show_runtime
    spacing test unstack vecdot vecmat"""
NOT_IN_CUPY = frozenset(_ABSENT.split())
"""Functions of NumPy that CuPy lacks."""

_ABSENT_IN_LINALG = "diagonal matrix_norm multi_dot outer svdvals tensordot test trace vecdot vector_norm"
NOT_IN_CUPY_LINALG = frozenset(_ABSENT_IN_LINALG.split())

ARGUMENTS = {
    "arange": "start stop step dtype",
    "argsort": "a axis kind",
    "array": "obj dtype copy order subok ndmin blocking",
    "asarray": "a dtype order copy blocking",
    "broadcast_to": "array shape",
    "clip": "a a_min a_max out",
    "concatenate": "tup axis out dtype casting",
    "concat": "tup axis out dtype casting",
    "cumsum": "a axis dtype out",
    "max": "a axis out keepdims",
    "mean": "a axis dtype out keepdims",
    "min": "a axis out keepdims",
    "prod": "a axis dtype out keepdims",
    "ravel": "a order",
    "reshape": "a newshape order copy",
    "sort": "a axis kind",
    "stack": "tup axis out dtype casting",
    "std": "a axis dtype out ddof keepdims",
    "sum": "a axis dtype out keepdims",
    "tensordot": "a b axes",
    "transpose": "a axes",
    "var": "a axis dtype out ddof keepdims",
    "where": "condition x y",
}
"""Arguments of the functions whose CuPy signature is narrower than NumPy's."""
