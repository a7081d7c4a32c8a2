mkdir batches
cp "$ROOT/examples/preference-batch.safetensors" batches/
