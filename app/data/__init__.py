"""Reading images: what there is, in which order, decoded how."""
