"""Pairs and items with the votes of annotators. Importing it requires no torch.

pairs       a pair of responses with its votes; swaps, single votes, splits
loading     reads pairs from files, folders and the Hub; writes them as JSONL
items       texts with counts of K labels, and the task of their annotators
formats     reads items: our own columns and the layouts of published datasets
tables      rows of JSONL, CSV and Parquet files and of datasets, with their places
fields      checks of single values in a row
population  simulated annotators with a known truth; their texts are in simulated_texts.json
curriculum  responses that grow during training, for policies from scratch
errors      base classes of the errors that a user can fix
"""
