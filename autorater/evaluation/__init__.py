"""Evaluation of judges on held-out pairs.

judge     one judge, measured in both orders
methods   judging methods and post-processing compared on the same pairs
panels    a panel of the judges compared
results   the files of a run: output directory, metrics.json, predictions.jsonl
judgment_store, requests   judgments stored one by one; requests to a server and what they used
stored_judgments           judgments stored in parts

Importing these does not import torch.
"""
