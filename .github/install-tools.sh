#!/usr/bin/env bash
# In the container of the workflows, Debian 12: CMake, and CUDA's compiler for the addon of Linux x64.
set -euo pipefail
keyring=$(mktemp --suffix=.deb)
curl -fsSL https://developer.download.nvidia.com/compute/cuda/repos/debian12/x86_64/cuda-keyring_1.1-1_all.deb -o "$keyring"
dpkg -i "$keyring"
rm "$keyring"
apt-get update -q
apt-get install -q -y --no-install-recommends cmake ninja-build \
  cuda-nvcc-13-0 cuda-cudart-dev-13-0 cuda-cuobjdump-13-0 cuda-nvdisasm-13-0
echo /usr/local/cuda-13.0/bin >> "$GITHUB_PATH"
