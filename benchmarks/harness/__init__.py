"""Shared code of the benchmarks.

measure.py        alternating timings, peak memory of a fresh process, the machine, JSON lines
inputs.py         models of a given shape with random weights, judge prompts of an exact length
trainers.py       TRL's trainer on our prompt ids, and a clock for its steps
fake_endpoint.py  an OpenAI-compatible server with faults
fake_wandb.py     a W&B server that stops answering
interrupted.py    a recipe that is killed and restarted
"""
