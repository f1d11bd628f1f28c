"""Distribution alignment (arXiv 2505.12301): judges with any label set, trained on the distribution of the votes.

labels      label formats, and the exact distribution over labels
judge       a judge that answers with a label
arguments   the options of a run
data        the items of a run, read or simulated
adversary   the worst distribution near the vote shares
trainer     the objective and its trainer
run         a run from the data to the report
evaluation  metrics of a judge on held-out items
report      report and model card of a judge of items
"""
