"""Any network into its SHC counterpart and back."""

from shconv.conversion.convert import to_shc
from shconv.conversion.report import ConversionReport, conversion_report
from shconv.conversion.vanilla import load_vanilla, to_vanilla
from shconv.conversion.where import is_3x3

__all__ = ["ConversionReport", "conversion_report", "is_3x3", "load_vanilla", "to_shc", "to_vanilla"]
