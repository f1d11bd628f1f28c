"""Runs that survive a crash.

checkpoints  which checkpoint is complete, which one to resume from, which may be removed
record       completed stages of a run, stored in run.json (`stages`)
resumable    trainers that resume exactly where they stopped
"""
