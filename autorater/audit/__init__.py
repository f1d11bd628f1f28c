"""Audit of a judge: position bias, and bias from padding, injected instructions and labels. Needs no torch.

arguments    the command line
probes       two presentations of a pair that should not change an unbiased judge's probability
plan         the requests of an audit, numbered
judging      sends the requests that have no judgment yet (stored by `autorater.evaluation.judgment_store`)
predictions  the judgments as arrays
results      metrics and flips
verdict      the result in a sentence
plots        figures of the report
report       report.html (template: report.html.j2) and the summary for the terminal
run          all of these in order
style        a response with and without Markdown, for a probe
judge_command, rank_command   `autorater judge` and `rank`; `processes`: several that judge together
"""
