"""Looks at a machine before a run does: each thing is fine, or said with the command that mends it.

Imports nothing of the project but `align.terminal.findings` at its head: what is looked for may be
missing.
"""
