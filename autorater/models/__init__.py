"""Causal language models: loaded or built small, and read exactly after many prompts at once.

loading            any model of the Hub, a folder, an adapter or a GGUF file
gguf               a GGUF file as a plain model folder
tiny               a small Qwen2 and its tokenizer, built from scratch
libraries          environment and log levels of torch, transformers and DeepSpeed
text_only          the language model of one that reads images too
saving             saved weights that servers may read
response_states    mean hidden states of responses, for probes
suffixes           layouts of many short suffixes of one prompt
split_attention    attention for a prompt that is shared by its suffixes
shared_prefix      logits and log-probabilities of suffixes in one forward pass
prefix_cache       keys and values of the beginning of prompts, kept from batch to batch
prefix_tree        the same suffixes after many prompts, at the price of their distinct tokens
packing            the ends of many prompts, packed so that common beginnings are read once
shared_beginning   a batch in training whose common beginning is processed once
shared_generation  G samples per prompt with one prefill
repeated_cache     models that cannot hold a prompt's suffixes in one row: its cache is repeated
checkpointed_cache gradient checkpointing of layers that fill a cache
cache_copies       copies of a cache that leave the original as it is
modes              a model without dropout, or without autocast, for a while
same_scores        whether a faster way gives the log-probabilities of the plain one
token_tree         finitely many strings after a prompt, as a tree of tokens
distribution       probabilities of the answers to prompts, their mean, mode and spread
answers            the exact distribution over verbalized probabilities
memory             the memory of a training step, estimated
devices            the device that a model is moved to
shares             rows divided among the processes of a run
sharding           parameters sharded over processes (ZeRO-3, FSDP)
"""
