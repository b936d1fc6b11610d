"""ILSVRC2012 ("ImageNet"), from the three published files to what the training reads. No torch, no internet."""
