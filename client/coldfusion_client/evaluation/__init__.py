"""Measuring models for their scores: what is asked for, found, refused, measured and posted."""
