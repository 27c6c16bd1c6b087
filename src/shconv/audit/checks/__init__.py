"""The twelve checks, each a module: what it does, what raises its alarm, and why that means masking."""

from shconv.audit.check import Check
from shconv.audit.checks import (
    c01_routes,
    c02_strength,
    c03_random_start,
    c04_budget,
    c05_transfer,
    c06_gradient_free,
    c07_random_signs,
    c08_gradients,
    c09_loss_surface,
    c10_binarisation,
    c10_indicators,
    c11_ablations,
    c12_worst_case,
)

CHECKS: tuple[Check, ...] = (
    c08_gradients,
    c09_loss_surface,
    c03_random_start,
    c01_routes,
    c10_indicators,
    c05_transfer,
    c04_budget,
    c11_ablations,
    c10_binarisation,
    c02_strength,
    c07_random_signs,
    c06_gradient_free,
    c12_worst_case,
)
"""Cheap ones first; searches without gradients after all white-box attacks, the worst case last."""
