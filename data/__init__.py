"""Files to tensors: benchmarks, samples, media, prompts, the feature store and batches."""
