"""Language models: loaded or built small, and read exactly behind many prompts at once.

loading            any causal language model of the Hub or a folder
tiny               a small Qwen2 and its tokenizer, from scratch
libraries          environment and log levels of torch, transformers and DeepSpeed
suffixes           layouts of many short suffixes behind one prompt
split_attention    attention of a prompt shared by its suffixes
shared_prefix      logits and log-probabilities of suffixes in one forward pass
shared_generation  G samples a prompt with one prefill
token_tree         finitely many strings behind a prompt, as a tree of tokens
answers            the exact distribution over verbalized probabilities
sharding           parameters spread over processes (ZeRO-3, FSDP)
"""
