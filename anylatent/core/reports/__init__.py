"""Figures of trained runs, as tables and pictures."""
