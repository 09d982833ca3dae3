"""Measures of detectors, classifiers and windows, each by a named protocol."""
