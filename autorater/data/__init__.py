"""Pairs and items with the votes of annotators. Importing it requires no torch.

pairs       a pair of responses with its votes; swaps, single votes, splits
messages    texts that may be conversations
loading     reads pairs from files, folders, the Hub and tables in memory; writes them as JSONL
rows        one row as pairs: finds the layout
columns     our columns, and the errors when a source lacks one or misnames it
row_values  a row in our columns as a pair: checks the values
layouts     published layouts of pairs, one file a family
load_report  what became of the rows of a source
gathering   rows that repeat a pair
post_stratification   votes weighted to the groups of another population
convert     the command `autorater convert`
public_splits   the command `autorater splits`: human judgments from clones of public repositories
items       texts with counts of K labels, and the task of their annotators
formats     reads items: our own columns and the layouts of published datasets
tables      rows of files, datasets and tables in memory, with their places; JSON and CSV in text_files
fields      checks of single values in a row
population  simulated annotators with a known truth; their texts are in simulated_texts.json
curriculum  responses that grow during training, for policies from scratch
objective   pairs with one right answer, from templates
config_file options in a YAML file
recipes     the command `autorater recipes`
errors      base classes of the errors that a user can fix
atomic      files that are written in one step
"""
