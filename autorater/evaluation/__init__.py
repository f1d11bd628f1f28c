"""Evaluation of judges on held-out pairs.

judge     one judge, measured in both orders
methods   judging methods and post-processing compared on the same pairs; `method_judgments`: those of one method
panels    a panel of the judges compared
results   the files of a run: output directory, metrics.json, predictions.jsonl
arguments the options of `autorater evaluate`
objective accuracy on pairs with one right answer, before and after training
judgment_store, requests   judgments stored one by one; requests to a server and what they used
stored_judgments           judgments stored in parts

All but `objective` import no torch.
"""
