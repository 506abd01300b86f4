"""The 19 common corruptions of Hendrycks and Dietterich, five severities each, on batches."""
