"""`python -m app.data.ilsvrc`: prepares ImageNet, as `resnetctl dataset prepare-imagenet` does."""

import sys

from app.data.commands import main, prepare_arguments, prepare_imagenet

if __name__ == "__main__":
    sys.exit(
        main(
            prepare_imagenet,
            prepare_arguments,
            "app.data.ilsvrc",
            "From the published ImageNet tars to train/ and val/. The same command goes on where one was stopped.",
        )
    )
