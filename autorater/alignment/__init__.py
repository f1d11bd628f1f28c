"""Distribution alignment (arXiv 2505.12301): judges of any label set, trained on the distribution of the votes.

labels      label formats, and the exact distribution over labels
judge       a judge that answers with a label
data        items of a run, read or simulated
warm_start  a policy from scratch learns to answer with a label
adversary   the worst distribution near the vote shares
trainer     the objective and its trainer
evaluation  distributions measured on held-out items
"""
