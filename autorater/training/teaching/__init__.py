"""Before its training on votes, a judge learns the probabilities of a teacher.

texts      the training texts of a run and all pairs that can be made of them
teachers   Pr[B better] of such pairs: from a cross-fitted linear probe, another judge, or a file
loss       exact losses of a verbalized probability or of two scores, with the teacher's as the target
trainer    batches of a few texts with a target for every pair among them; resumable
stage      the stage of a run
"""
