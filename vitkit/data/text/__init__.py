"""Text: tokenisers that travel in a checkpoint, one long text in windows, pairs of sentences."""
