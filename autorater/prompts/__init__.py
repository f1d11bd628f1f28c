"""Judge prompts. Torch is imported only when a batch is padded.

templates  formats of prompts: template files with slots, checked when loaded; ours are in layouts/
pointwise  the same for prompts with one response
markers    markers that texts must not imitate, and the turns of conversations
rendering  the layout as a chat template renders it, up to where the answer begins
tokens     token ids of texts in the middle of a sequence, for every kind of tokenizer
encoder    prompts as token ids, in which a response stays data
reasoning  the end of the reasoning and the beginning of the answer
beginnings what sequences of tokens have in common at their beginning
batching   batches of prompts of similar length or with the same beginning, padding, over-long prompts
"""
