"""A study: every method on the same grounds, with the same votes, policies and seeds, from one file.

plan        grounds, methods and seeds, and the cells they make
grounds     what a cell learns from and is measured on
training    one way to train
course      what it costs, and how calibrated the judge is meanwhile
baselines   predictors that read no language
cells       one cell: trained, read, measured
running     all of them, each once, several at a time
"""
