"""scikit-learn's own checks, with no expected failure."""

import pytest
from _helpers import run
from sklearn.utils.estimator_checks import parametrize_with_checks

from skdl import SoftmaxRegressionClassifier

SETTINGS = [
    {},
    {"lr": 0.1},
    {"n_jobs": 1},
    {"n_jobs": 2},
    {"early_stopping": True},
    {"warm_start": True},
    {"class_weight": "balanced"},
    {"l1_ratio": 0.5},
    # the 3000 launches of a default fit would take minutes here
    {"backend": "opencl", "max_iter": 30},
    {"backend": "opencl", "max_iter": 30, "lr": 0.1},
    {"backend": "opencl", "max_iter": 30, "early_stopping": True},
]

# The split that early stopping makes draws rows: a row repeated may be on both sides, a row weighted is on one.
SPLITS = {
    "check_sample_weight_equivalence_on_dense_data": "early stopping draws rows, not weights",
    "check_sample_weight_equivalence_on_sparse_data": "early stopping draws rows, not weights",
}


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@parametrize_with_checks(
    [SoftmaxRegressionClassifier(**settings) for settings in SETTINGS],
    expected_failed_checks=lambda estimator: SPLITS if estimator.early_stopping else {},
)
def test_scikit_learn_check(estimator, check):
    check(estimator)


@pytest.mark.timeout(120)
def test_array_api_checks():
    """SCIPY_ARRAY_API=1 must be set before scipy is imported, so this runs in a process of its own."""
    program = """
        from sklearn.utils.estimator_checks import check_estimator
        from skdl import SoftmaxRegressionClassifier
        results = check_estimator(SoftmaxRegressionClassifier(), on_skip=None)
        assert len(results) > 40 and not [r for r in results if r["status"] == "failed"]
        print({r["status"] for r in results})
    """
    run(program, timeout=120, SCIPY_ARRAY_API="1")
