"""A study of methods: all trained on the same data, votes, policies and seeds, described by one YAML file.

plan            datasets, methods and seeds, and the runs that they define
data            training data and tests of a run
training        trainers by name
learning_curve  cost and calibration during training
baselines       text baselines without a language model
run             one run: train, judge, measure
pretrained      one run of a pretrained model: a recipe in a process of its own
runner          all runs, several at a time, resumable
results         estimates over seeds with intervals
tables, figures, page   the report of the study
pretrained_page         that of a study of a pretrained model
"""
