"""Pictures and words: sources, decoding, views, tokenizers, batches, and the procedural `scenes`."""
