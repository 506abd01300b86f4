"""Numbers about a finished model. Gets a callable and batches; knows no model, data or trainer."""
