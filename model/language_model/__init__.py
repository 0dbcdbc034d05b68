"""The causal LM around which the experts sit: loading, splicing of media tokens, loss and generation."""
