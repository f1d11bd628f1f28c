"""Judges measured on held-out pairs.

results   the files of a run: output directory, metrics.json, predictions.jsonl
judge     one judge, both orders
methods   judging methods and calibrators compared on the same pairs
"""
