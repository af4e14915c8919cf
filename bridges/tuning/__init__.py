"""Optuna studies of training and of the circuit search."""
