"""Sources, splits, and what is done to pixels before the model. Knows no model and no loss."""
