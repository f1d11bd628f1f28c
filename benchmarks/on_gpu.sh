#!/usr/bin/env bash
# Everything that is to be measured on one GPU of 80 GB, in at most eight minutes, without network and compiler:
#
#     bash benchmarks/on_gpu.sh                   # writes runs/on_gpu/results.json and results.md
#     bash benchmarks/on_gpu.sh --tiny            # the same in small on two CPU cores, in under two minutes
#     bash benchmarks/on_gpu.sh --out FOLDER
#
# Packages: torch, transformers, accelerate, peft, trl, datasets, scipy, matplotlib, jinja2, and what these bring. trl, peft,
# datasets, jinja2 and tqdm are pure Python; torch, numpy, scipy, matplotlib, tokenizers, safetensors, regex, pyyaml, psutil
# and what datasets brings (pyarrow, pandas, xxhash) are compiled and come as wheels for the machine's Python. Nothing is built.
set -euo pipefail
cd "$(dirname "$0")/.."
export CUDA_VISIBLE_DEVICES="${CUDA_VISIBLE_DEVICES:-0}" # several in one process would share its batches
export PYTHONPATH="$PWD${PYTHONPATH:+:$PYTHONPATH}" HF_HUB_OFFLINE=1 OMP_NUM_THREADS="${OMP_NUM_THREADS:-1}"
exec "${PYTHON:-python3}" benchmarks/harness/on_gpu.py "$@"
