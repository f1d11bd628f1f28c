"""Judge prompts. Torch is imported only when a batch is padded.

templates  formats of prompts, and the markers that texts must not imitate; the wording is in layouts/
encoder    prompts as token ids, in which a response stays data
pointwise  prompts for a single response, answered by a digit
reasoning  the end of the reasoning and the beginning of the answer
batching   batches of prompts of similar length, padding, over-long prompts
"""
