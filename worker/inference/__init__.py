"""From texts to logits: bundles of weights, tokenizers, classifiers, and the thread they run on."""
