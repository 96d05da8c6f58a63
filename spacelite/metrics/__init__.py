"""In: labels and predictions. Out: metrics, calibration, significance tests."""
