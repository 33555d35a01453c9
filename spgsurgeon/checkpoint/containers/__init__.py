"""The containers of weights files: zip, pickle streams, safetensors, shards."""
