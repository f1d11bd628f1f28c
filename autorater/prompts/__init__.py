"""Judge prompts. Needs no torch until a batch is padded.

templates  the wording, and what a response may not imitate
encoder    token ids in which a response stays data
reasoning  where a reasoning ends and the answer begins
batching   batches of similar lengths; over-long prompts
"""
