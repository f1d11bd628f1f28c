"""What the benchmarks share.

measure.py    sides timed in turn, peak memory of a fresh process, the machine, JSON lines
inputs.py     models of a given shape with random weights, judge prompts of an exact length
trainers.py   TRL's own trainer on our prompt ids, and a clock for its steps
"""
