"""In: labels and predictions. Out: metrics, calibration, which differences are real."""
