"""The methods that are compared, one file each; table.py lists them, base.py says what a method decides."""
