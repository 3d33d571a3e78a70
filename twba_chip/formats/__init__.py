"""The exported network in other tools' formats."""
