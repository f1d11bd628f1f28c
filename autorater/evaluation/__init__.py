"""Evaluation of judges on held-out pairs.

judge     one judge, measured in both orders
methods   judging methods and post-processing compared on the same pairs
results   the files of a run: output directory, metrics.json, predictions.jsonl

Importing `judge` and `results` imports no torch.
"""
