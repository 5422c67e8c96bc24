"""Experiments, their folders, figures and reports."""
