"""Auditing a judge for position bias, and for other things that it should not care for. Needs no torch.

probes      ways to show a pair twice in which something that should not matter changes sides
plan        the questions of an audit, numbered
asking      asking a judge all that is not answered yet
journal     every judgment, written once as it arrives; how a killed run goes on
readings    what was said, as arrays
results     figures and flips
arguments   what the script can be told

Data flows one way: pairs → plan → judge → journal → readings → results → `autorater.audit.report`. Deliberately left
out: what a judge is (`autorater.judges`) and the figures themselves (`autorater.metrics.position_audit`).
"""
