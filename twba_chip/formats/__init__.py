"""Exported networks in other tools' formats."""
