"""The training: what runs in every pod, on a laptop, or typed by hand."""
