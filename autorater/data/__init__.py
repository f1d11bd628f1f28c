"""Pairs and items with their votes. Needs no torch.

pairs       two responses to a prompt; sparse labels, swaps, splits
items       texts with counts of K labels
loading     pairs from files, folders, the Hub
formats     items from published file layouts
tables      rows of JSONL, CSV, Parquet, datasets
fields      checks of single values
population  simulated annotators with a known truth
curriculum  growing responses, for policies from scratch
errors      errors that a user can fix
"""
